"""Text without special tokens -> token ids, one function for each kind of vocabulary. Built on the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from runtime.token_roles import BYTE, CONTROL, UNKNOWN
from runtime.unigram import Unigram
from runtime.vocabulary import Vocabulary, read_merges

Encoder = Callable[[str], list[int]]

BLOCK = "\u2581"  # stands for a space in SentencePiece's vocabularies


def make_encoder(vocabulary: Vocabulary, metadata: Mapping[str, Any]) -> Encoder:
    """The encoder for the vocabulary's model; `metadata` has the merges of a BPE one."""
    if vocabulary.model == "llama":
        return _sentence_piece(vocabulary)
    if vocabulary.model == "bert":
        return WordPiece(vocabulary).encode
    if vocabulary.model == "t5":
        return Unigram(vocabulary).encode
    return _byte_pairs(vocabulary, read_merges(metadata, vocabulary.ids))


def _with_blocks(tokenizer: Tokenizer) -> Encoder:
    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text.replace(" ", BLOCK), add_special_tokens=False).ids)

    return encode


def _byte_pairs(vocabulary: Vocabulary, merges: list[tuple[str, str]]) -> Encoder:
    """BPE by a list of merges: byte-level, or on raw text with <0xNN> tokens for what has none."""
    pre = vocabulary.pre
    model = models.BPE(
        vocab=vocabulary.ids,
        merges=merges,
        ignore_merges=pre.ignore_merges,
        byte_fallback=pre.spaces_as_blocks,
    )
    tokenizer = Tokenizer(model)
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    if pre.spaces_as_blocks:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        return _with_blocks(tokenizer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(False, use_regex=False)])

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    return encode


def _sentence_piece(vocabulary: Vocabulary) -> Encoder:
    """SentencePiece's BPE, which has no list of merges: two neighbours join when the result is a token, best score first."""
    unknown = vocabulary.roles.get("unknown")
    model = models.BPE(
        vocab=vocabulary.ids,
        merges=_merges_by_score(vocabulary),
        unk_token=None if unknown is None else vocabulary.tokens[unknown],
        fuse_unk=False,
        byte_fallback=True,
    )
    return _with_blocks(Tokenizer(model))


def _merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every way to join two tokens into a third one, in the order in which SentencePiece would.

    Control, unknown and byte tokens do not come out of a merge: typed text must not turn into one. Tokens of equal score
    are joined from left to right, each as far as it goes (runs of spaces, mostly): longer ones first does the same.
    """
    ids, scores = vocabulary.ids, vocabulary.scores
    plain = [not attribute & (CONTROL | UNKNOWN | BYTE) for attribute in vocabulary.attributes]
    order = sorted(
        (i for i, token in enumerate(vocabulary.tokens) if plain[i] and len(token) > 1),
        key=lambda i: (-scores[i], -len(vocabulary.tokens[i])),
    )
    return [pair for i in order for pair in _splits(vocabulary.tokens[i], ids)]


def _splits(token: str, ids: dict[str, int]) -> Iterator[tuple[str, str]]:
    for at in range(len(token) - 1, 0, -1):
        if token[:at] in ids and token[at:] in ids:
            yield token[:at], token[at:]


class WordPiece:
    """BERT's: words are normalised and cut off by `tokenizers`, then covered by the longest tokens from the left.

    The covering is done here, since the library's own looks at every prefix of a word, which takes minutes for a word of a
    megabyte. GGUF writes `word` as `▁word` and `##part` as `part`.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = vocabulary.ids
        self._unknown = [vocabulary.roles["unknown"]] if "unknown" in vocabulary.roles else []
        self._longest = max(map(len, vocabulary.tokens))
        self._normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=True,
            strip_accents=vocabulary.strip_accents,
            lowercase=vocabulary.lowercase,
        )
        self._words = pre_tokenizers.BertPreTokenizer()

    def encode(self, text: str) -> list[int]:
        words = self._words.pre_tokenize_str(self._normalizer.normalize_str(text))
        return [token for word, _ in words for token in self._cover(BLOCK + word)]

    def _cover(self, word: str) -> list[int]:
        found, at = [], 0
        while at < len(word):
            for end in range(min(len(word), at + self._longest), at, -1):
                if (token := self._ids.get(word[at:end])) is not None:
                    found.append(token)
                    at = end
                    break
            else:
                return self._unknown
        return found
