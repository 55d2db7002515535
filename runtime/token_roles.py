"""Which tokens of a vocabulary have a meaning of their own: BOS, EOS, the ends of a generation, control tokens.

The rules are llama.cpp's (llama-vocab.cpp), down to tokens that it recognises by their text because converters do not mark
them; Ollama answers by the same rules.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

log = logging.getLogger(__name__)

# what a token is; bits, since a rule may add to what the file says
UNKNOWN, UNUSED, NORMAL, CONTROL, USER_DEFINED, BYTE, LSTRIP, RSTRIP = (1 << bit for bit in range(8))
SPECIAL = CONTROL | USER_DEFINED | UNKNOWN  # found in the text before anything else

DEFAULT_IDS: Mapping[str, Mapping[str, int]] = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "gpt2": {"bos": 11, "eos": 11},
    "gemma4": {},
    "t5": {"eos": 1, "unknown": 2, "padding": 0},
    "bert": {"bos": 101, "unknown": 100, "seperator": 102, "padding": 0, "mask": 103},
}
"""Ids that stand where the metadata names none, by `tokenizer.ggml.model`."""

ROLE_KEYS: Mapping[str, tuple[str, ...]] = {
    "bos": ("bos_token_id",),
    "eos": ("eos_token_id",),
    "eot": ("eot_token_id",),
    "eom": ("eom_token_id",),
    "unknown": ("unknown_token_id",),
    "seperator": ("seperator_token_id",),  # the format's spelling
    "fim_pre": ("fim_pre_token_id", "prefix_token_id"),
    "fim_suf": ("fim_suf_token_id", "suffix_token_id"),
    "fim_mid": ("fim_mid_token_id", "middle_token_id"),
    "fim_pad": ("fim_pad_token_id",),
    "fim_rep": ("fim_rep_token_id",),
    "fim_sep": ("fim_sep_token_id",),
}
"""Roles and the metadata keys that fill them; the last one that is there counts."""

_BY_TEXT: Mapping[str, str] = {
    "eot": (
        "<|eot_id|> <|im_end|> <|end|> <end_of_turn> <|endoftext|> <|end_of_text|> <EOT> _<EOT> [EOT] "
        "<｜end▁of▁sentence｜> <end_of_utterance>"
    ),
    "eom": "<|eom_id|>",
    "fim_pre": "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>",
    "fim_suf": "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>",
    "fim_mid": "<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>",
    "fim_pad": "<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]",
    "fim_rep": "<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>",
    "fim_sep": "<|file_sep|>",
}
_END_TEXTS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|> <EOT> "
    "_<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> [e~["
)
_VISIBLE_TEXTS = "<|channel|> <|message|> <|start|> <|constrain|>"  # parts of gpt-oss's answers that a parser has to see
_ENDING_ROLES = ("fim_pad", "fim_rep", "fim_sep", "eos", "eot", "eom")


def find_roles(roles: dict[str, int], ids: Mapping[str, int], attributes: list[int]) -> None:
    """Fill the roles that are still empty by the tokens' texts. A token that is found becomes a control token."""
    for role, texts in _BY_TEXT.items():
        found = next((text for text in texts.split() if text in ids), None)
        if role not in roles and found is not None:
            roles[role] = ids[found]
            attributes[ids[found]] |= CONTROL


def end_of_generation(roles: Mapping[str, int], ids: Mapping[str, int], attributes: list[int]) -> set[int]:
    """Ids that end an answer. Marks tokens in `attributes` on the way, as llama.cpp does."""
    ends = {ids[text] for text in _END_TEXTS.split() if text in ids}
    for token in ends:
        attributes[token] |= CONTROL
    for text in _VISIBLE_TEXTS.split():
        if text in ids:
            attributes[ids[text]] = USER_DEFINED
    ends |= {roles[role] for role in _ENDING_ROLES if role in roles}
    _drop_harmony_end(ends, ids, attributes)
    _drop_plain_eos(ends, ids, attributes)
    return ends


def _has(ends: Iterable[int], ids: Mapping[str, int], *texts: str) -> bool:
    return any(ids.get(text, -1) in ends for text in texts)


def _drop_harmony_end(ends: set[int], ids: Mapping[str, int], attributes: list[int]) -> None:
    """In gpt-oss and Solar vocabularies <|end|> only closes a message."""
    called = _has(ends, ids, "<|call|>", "<|calls|>")
    if called and _has(ends, ids, "<|return|>", "<|flush|>") and _has(ends, ids, "<|end|>"):
        ends.remove(ids["<|end|>"])
        attributes[ids["<|end|>"]] = USER_DEFINED


def _drop_plain_eos(ends: set[int], ids: Mapping[str, int], attributes: list[int]) -> None:
    """In Gemma 4 and PLaMo vocabularies </s> is ordinary text (an HTML tag)."""
    if _has(ends, ids, "<|tool_response>", "<|plamo:eos|>") and _has(ends, ids, "</s>"):
        ends.remove(ids["</s>"])
        attributes[ids["</s>"]] = NORMAL


def strip_rules(names: Mapping[str, str], ids: Mapping[str, int], attributes: list[int]) -> None:
    """Mark the tokens that swallow white space beside them. `names`: the model's name (lower case), pre-tokenizer, architecture.

    GGUF has no field for it, so llama.cpp goes by the names of the models that are known to need it.
    """
    jina = any(name in names["pre"] for name in ("jina-v2-de", "jina-v2-es", "jina-v2-code"))
    if jina or any(name in names["architecture"] for name in ("nomic-bert-moe", "jina-bert-v3")):
        _mark(ids, attributes, "<mask>", LSTRIP)
    elif "phi-3" in names["name"] or "phi3" in names["name"]:
        for token, attribute in enumerate(attributes):
            if attribute & SPECIAL:
                attributes[token] |= RSTRIP
        _mark(ids, attributes, "</s>", RSTRIP)
        for text in ("<unk>", "<s>", "<|endoftext|>"):
            if text in ids:
                attributes[ids[text]] &= ~RSTRIP
    elif "modern-bert" in names["name"]:
        _mark(ids, attributes, "[MASK]", LSTRIP)


def _mark(ids: Mapping[str, int], attributes: list[int], text: str, bit: int) -> None:
    if text in ids:
        attributes[ids[text]] |= bit
    else:
        log.warning("the vocabulary lacks the token %s that models of this name have", text)
