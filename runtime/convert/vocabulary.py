"""The tokenizer of a checkpoint as GGUF metadata: SentencePiece, byte-level BPE, or WordPiece."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from runtime.convert import pre_tokenizer
from runtime.convert.chat_template import chat_template
from runtime.convert.errors import ConvertError
from runtime.convert.metadata import Values
from runtime.convert.sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, NotSentencePiece, read_model
from runtime.convert.source import Source
from runtime.convert.special import Special, content

MAX_TOKENS = 1 << 22

_BLOCK = "\u2581"  # a space in SentencePiece's vocabularies
_BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")
_NEVER = -10000.0  # the score of a token that no text contains


@dataclasses.dataclass(slots=True)
class Vocabulary:
    """A vocabulary in the making. `types` and `scores` (of SentencePiece only) go with `tokens`, of which a model has `rows`."""

    model: str
    rows: int
    tokens: list[str]
    types: list[int]
    scores: list[float] = dataclasses.field(default_factory=list)
    merges: list[str] | None = None
    values: Values = dataclasses.field(default_factory=dict)

    def put(self, number: int, text: str, kind: int, score: float = _NEVER) -> None:
        """Sets a token; those between the last one and it are filled up. One that the model has no numbers for is left out."""
        if number >= self.rows:
            return
        self.fill(number + 1)
        self.tokens[number], self.types[number] = text, kind
        if self.scores:
            self.scores[number] = score

    def fill(self, count: int) -> None:
        """As many tokens as that: the missing ones get names of no meaning."""
        missing = range(len(self.tokens), count)
        self.tokens += [f"[PAD{i}]" for i in missing]
        self.types += [UNUSED] * len(missing)
        if self.scores:
            self.scores += [_NEVER] * len(missing)

    def fit(self) -> None:
        """As many tokens as the model has numbers for."""
        self.fill(self.rows)
        del self.tokens[self.rows :], self.types[self.rows :], self.scores[self.rows :]


def read_vocabulary(source: Source, rows: int) -> Values:
    """Metadata of the tokenizer for a model with `rows` embeddings; ConvertError where there is none that GGUF could hold."""
    vocabulary = _read(source, rows)
    for number, text, special in _added(source):
        kind = CONTROL if special or _looks_special(text) else USER_DEFINED
        if vocabulary.types[number : number + 1] != [UNKNOWN]:
            vocabulary.put(number, text if kind == CONTROL else text.replace(_BLOCK, " "), kind)
    vocabulary.fit()
    ids = dict(zip(vocabulary.tokens, range(rows), strict=True))
    if vocabulary.model == "bert":
        pairs = zip(vocabulary.tokens, vocabulary.types, strict=True)
        vocabulary.tokens = [text if kind == CONTROL else _word_piece(text) for text, kind in pairs]
    values: Values = {"tokenizer.ggml.model": vocabulary.model, "tokenizer.ggml.pre": pre_tokenizer.DEFAULT}
    values["tokenizer.ggml.tokens"] = vocabulary.tokens
    if vocabulary.scores:
        values["tokenizer.ggml.scores"] = np.array(vocabulary.scores, np.float32)
    values["tokenizer.ggml.token_type"] = np.array(vocabulary.types, np.int32)
    if vocabulary.merges is not None:
        values["tokenizer.ggml.merges"] = [merge for merge in vocabulary.merges if _is_possible(merge, ids)]
    return values | vocabulary.values | Special(source, ids).values() | chat_template(source)


def _is_possible(merge: str, ids: Mapping[str, int]) -> bool:
    """Whether both tokens and what they make are there; some may have been cut off."""
    left, _, right = merge.partition(" ")
    return left in ids and right in ids and left + right in ids


def _word_piece(text: str) -> str:
    """GGUF marks the beginning of a word, where WordPiece marks what is none."""
    return text[2:] if text.startswith("##") else _BLOCK + text


def _read(source: Source, rows: int) -> Vocabulary:
    if "tokenizer.model" in source:
        try:
            return _sentence_piece(source, rows)
        except NotSentencePiece:
            if "tokenizer.json" not in source:
                raise ConvertError("tokenizer.model is no SentencePiece model") from None
    if "tokenizer.json" in source:
        return _tokenizer_json(source.json("tokenizer.json"), rows)
    if "vocab.txt" in source:
        words = source.text("vocab.txt").splitlines()
        types = [CONTROL if re.fullmatch(r"\[(PAD|UNK|CLS|SEP|MASK)\]", word) else NORMAL for word in words]
        lower = source.json_or_empty("tokenizer_config.json").get("do_lower_case", True) is not False
        return Vocabulary("bert", rows, words, types, values={"tokenizer.ggml.normalizer.lowercase": lower})
    raise ConvertError("unknown tokenizer format")


def _sentence_piece(source: Source, rows: int) -> Vocabulary:
    model = read_model(source.path("tokenizer.model").read_bytes())
    vocabulary = Vocabulary("llama", rows, model.tokens, model.types, model.scores)
    stated = source.json_or_empty("tokenizer_config.json").get("add_prefix_space")
    if not model.adds_prefix or isinstance(stated, bool):
        vocabulary.values["tokenizer.ggml.add_space_prefix"] = model.adds_prefix and stated is not False
    return vocabulary


def _tokenizer_json(tokenizer: Mapping[str, Any], rows: int) -> Vocabulary:
    model = tokenizer.get("model")
    if not isinstance(model, dict):
        raise ConvertError("parse tokenizer.json: 'model' is missing")
    kind = model.get("type") or ("BPE" if "merges" in model else "WordPiece")
    vocab = model.get("vocab")
    if kind not in ("BPE", "WordPiece") or not isinstance(vocab, dict):
        raise ConvertError(f"unsupported tokenizer {kind!r}")
    vocabulary = Vocabulary("gpt2", rows, [], [])
    for text, number in vocab.items():
        if type(number) is not int or not 0 <= number < MAX_TOKENS:
            raise ConvertError(f"parse tokenizer.json: the token {text!r} has the id {number!r}")
        vocabulary.put(number, text, NORMAL)
    if kind == "WordPiece":
        vocabulary.model = "bert"
        vocabulary.values |= _normalizer(tokenizer.get("normalizer"))
        return vocabulary
    merges = _merges(model.get("merges"))
    if model.get("byte_fallback") is True and not _is_byte_level(tokenizer):
        return _blocks(vocabulary, tokenizer, merges)
    vocabulary.values["tokenizer.ggml.pre"] = pre_tokenizer.detect(tokenizer)
    vocabulary.merges = [_merge(pair) for pair in merges]
    return vocabulary


def _is_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    described = tokenizer.get("pre_tokenizer")
    steps = described.get("pretokenizers", [described]) if isinstance(described, dict) else []
    return any(isinstance(step, dict) and step.get("type") == "ByteLevel" for step in steps)


def _blocks(vocabulary: Vocabulary, tokenizer: Mapping[str, Any], merges: list[list[str]]) -> Vocabulary:
    """A SentencePiece model that was rewritten as merges. Its scores are gone, but the order of the merges is theirs."""
    vocabulary.model = "llama"
    ranks: dict[str, int] = {}
    for pair in merges:
        ranks.setdefault("".join(pair), len(ranks))
    vocabulary.scores = [-float(ranks.get(text, len(ranks))) for text in vocabulary.tokens]
    unknown = tokenizer["model"].get("unk_token")
    for number, text in enumerate(vocabulary.tokens):
        if _BYTE_TOKEN.fullmatch(text):
            vocabulary.types[number] = BYTE
        elif text == unknown:
            vocabulary.types[number] = UNKNOWN
    vocabulary.values["tokenizer.ggml.add_space_prefix"] = _adds_prefix(tokenizer)
    return vocabulary


def _adds_prefix(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a text gets a space before its first word."""
    normalizer, cutter = tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")
    for step in (*_steps(normalizer, "normalizers"), *_steps(cutter, "pretokenizers")):
        if step.get("type") == "Prepend":
            return True
        if step.get("type") == "Metaspace":
            scheme = step.get("prepend_scheme")
            return scheme != "never" if scheme else step.get("add_prefix_space") is not False
    return False


def _steps(described: Any, key: str) -> Iterator[dict[str, Any]]:
    """The steps of a sequence, or the one that is all."""
    if isinstance(described, dict):
        inner = described.get(key)
        if isinstance(inner, list):
            for step in inner:
                yield from _steps(step, key)
        else:
            yield described


def _normalizer(described: Any) -> Values:
    values: Values = {}
    for step in _steps(described, "normalizers"):
        if step.get("type") == "Lowercase":
            values["tokenizer.ggml.normalizer.lowercase"] = True
        elif step.get("type") == "StripAccents":
            values["tokenizer.ggml.normalizer.strip_accents"] = True
        elif step.get("type") == "BertNormalizer":
            stated = {key: step.get(key) for key in ("lowercase", "strip_accents")}
            values |= {f"tokenizer.ggml.normalizer.{key}": flag for key, flag in stated.items() if isinstance(flag, bool)}
    return values


def _merges(merges: Any) -> list[list[str]]:
    """Pairs of tokens; older files write a pair as one text."""
    pairs = []
    for merge in merges if isinstance(merges, list) else []:
        pair = merge.split(" ", 1) if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise ConvertError("could not parse tokenizer merges. expected []string or [][]string")
        pairs.append(pair)
    return pairs


def _merge(pair: list[str]) -> str:
    """GGUF writes a pair with a space between; one inside a token is written as byte-level vocabularies do."""
    return " ".join(part.replace(" ", "\u0120") for part in pair)


def _added(source: Source) -> Iterator[tuple[int, str, bool]]:
    """Tokens beside the vocabulary: id, text, whether they are special. Later ones count."""
    for text, number in source.json_or_empty("added_tokens.json").items():
        if _is_id(number):
            yield number, text, False
    entries = source.json_or_empty("tokenizer.json").get("added_tokens")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and _is_id(entry.get("id")) and content(entry):
            yield entry["id"], content(entry), entry.get("special") is True
    decoder = source.json_or_empty("tokenizer_config.json").get("added_tokens_decoder")
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        if key.isdecimal() and _is_id(int(key)) and isinstance(entry, dict) and content(entry):
            yield int(key), content(entry), entry.get("special") is True


def _is_id(number: Any) -> bool:
    return type(number) is int and 0 <= number < MAX_TOKENS


def _looks_special(text: str) -> bool:
    """Some files do not mark tokens that no text should contain."""
    framed = (text.startswith("<|") and text.endswith("|>")) or (text.startswith("<\uff5c") and text.endswith("\uff5c>"))
    unused = text.startswith("<unused") and text.endswith(">")
    return framed or unused or text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
