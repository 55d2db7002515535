"""The vocabulary of a GGUF file, read from its metadata and checked."""

from __future__ import annotations

import array
import base64
import dataclasses
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from runtime.core import ModelError
from runtime.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from runtime.token_roles import (
    BYTE,
    CONTROL,
    DEFAULT_IDS,
    NORMAL,
    ROLE_KEYS,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    end_of_generation,
    find_roles,
    strip_rules,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

_BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")
_TOKEN_TYPES = {1: NORMAL, 2: UNKNOWN, 3: CONTROL, 4: USER_DEFINED, 5: UNUSED, 6: BYTE}


@dataclasses.dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a file says about its tokens. A token's id is its place in `tokens` and `attributes`."""

    model: str  # tokenizer.ggml.model: "llama", "gpt2", "gemma4", "bert" or "t5"
    pre: PreTokenizer
    tokens: list[str]
    ids: dict[str, int]
    attributes: list[int]  # bits of runtime.token_roles
    control: list[int]  # control tokens by the file or by a rule; text of a user must not become one
    scores: Sequence[float]  # "llama" and "t5" only
    charsmap: bytes  # "t5" only: what replaces characters, as SentencePiece compiles it
    roles: Mapping[str, int]  # "bos", "eos", "unknown", ... -> id
    eog: frozenset[int]
    add_bos: bool
    states_bos: bool  # the file says so itself, where others leave it to the kind of vocabulary
    add_eos: bool
    add_sep: bool  # between two texts
    add_space_prefix: bool
    remove_extra_whitespaces: bool
    lowercase: bool
    strip_accents: bool


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary that a file's metadata describes; ModelError names the key that is missing or wrong."""
    model = _value(metadata, "model", str)
    if model not in DEFAULT_IDS:
        raise ModelError(f"{_key('model')}: the tokenizer {model!r} is not supported")
    pre = _pre_tokenizer(metadata, model)
    tokens = _tokens(metadata)
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) < len(tokens):
        twice = next(token for i, token in enumerate(tokens) if ids[token] != i)
        raise ModelError(f"{_key('tokens')}: the token {twice!r} appears twice")
    attributes = _attributes(metadata, tokens)
    declared = {i for i, attribute in enumerate(attributes) if attribute & CONTROL}
    roles = _roles(metadata, DEFAULT_IDS[model], pre, len(tokens))
    find_roles(roles, ids, attributes)
    eog = end_of_generation(roles, ids, attributes) | _more_ends(metadata, len(tokens))
    strip_rules(_names(metadata), ids, attributes)
    lowercase = _value(metadata, "normalizer.lowercase", bool, True)
    add_bos = _value(metadata, "add_bos_token", bool, pre.add_bos or model in ("llama", "bert"))
    return Vocabulary(
        model=model,
        pre=pre,
        tokens=tokens,
        ids=ids,
        attributes=attributes,
        control=[i for i, attribute in enumerate(attributes) if attribute & CONTROL or i in declared],
        scores=_scores(metadata, len(tokens)) if model in ("llama", "t5") else (),
        charsmap=_charsmap(metadata) if model == "t5" else b"",
        roles=roles,
        eog=frozenset(eog),
        add_bos=add_bos or pre.always_bos,
        states_bos=_value(metadata, "add_bos_token", bool, False),
        add_eos=_value(metadata, "add_eos_token", bool, model == "t5"),
        add_sep=_value(metadata, "add_sep_token", bool, model == "bert"),
        add_space_prefix=_value(metadata, "add_space_prefix", bool, model == "llama"),
        remove_extra_whitespaces=_value(metadata, "remove_extra_whitespaces", bool, False),
        lowercase=lowercase,
        strip_accents=_value(metadata, "normalizer.strip_accents", bool, lowercase),
    )


def read_merges(metadata: Mapping[str, Any], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pairs of tokens that a BPE vocabulary joins, best first; of a pair that is listed twice the first counts.

    They are not kept in the vocabulary, as they are many and nobody needs them twice.
    """
    pairs = []
    for merge in dict.fromkeys(_strings(metadata, "merges")):
        at = merge.find(" ", 1)  # a token may begin with a space
        left, right = merge[:at], merge[at + 1 :]
        if at < 0 or left not in ids or right not in ids or left + right not in ids:
            raise ModelError(f"{_key('merges')}: {merge!r} joins or makes what is no token")
        pairs.append((left, right))
    return pairs


def _key(name: str) -> str:
    return f"key 'tokenizer.ggml.{name}'"


def _value(metadata: Mapping[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """A value that must be of `kind`; without a default it must be there."""
    value = metadata.get("tokenizer.ggml." + name, default)
    if value is None:
        raise ModelError(f"{_key(name)} is missing")
    if not isinstance(value, kind):
        raise ModelError(f"{_key(name)}: expected {kind.__name__}, not {type(value).__name__}")
    return value


def _strings(metadata: Mapping[str, Any], name: str) -> list[str]:
    values = _value(metadata, name, list)
    if not {str}.issuperset(map(type, values)):
        raise ModelError(f"{_key(name)}: expected an array of strings")
    return values


def _numbers(metadata: Mapping[str, Any], name: str, codes: str, count: int) -> array.array[Any]:
    values = _value(metadata, name, array.array)
    if values.typecode not in codes:
        raise ModelError(f"{_key(name)}: an array of the wrong type")
    if len(values) < count:
        raise ModelError(f"{_key(name)}: {len(values)} entries for {count} tokens")
    return values


def _tokens(metadata: Mapping[str, Any]) -> list[str]:
    tokens = _strings(metadata, "tokens")
    if not tokens:
        raise ModelError(f"{_key('tokens')} is empty")
    if "" in tokens:
        log.warning("the vocabulary has empty tokens")
        tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
    return tokens


def _attributes(metadata: Mapping[str, Any], tokens: list[str]) -> list[int]:
    if "tokenizer.ggml.token_type" not in metadata:
        return [NORMAL] * len(tokens)
    types = _numbers(metadata, "token_type", "i", len(tokens))
    kind = _TOKEN_TYPES.get
    attributes = [kind(number, 0) for number in types[: len(tokens)]]
    for token, attribute in zip(tokens, attributes, strict=True):
        if attribute == BYTE and not _BYTE_TOKEN.fullmatch(token):
            raise ModelError(f"{_key('tokens')}: {token!r} is no name of a byte")
    return attributes


def _scores(metadata: Mapping[str, Any], count: int) -> Sequence[float]:
    if "tokenizer.ggml.scores" not in metadata:
        return [0.0] * count
    scores = _numbers(metadata, "scores", "fi", count)
    if any(map(math.isnan, scores)):
        raise ModelError(f"{_key('scores')}: a score is not a number")
    return scores


def _charsmap(metadata: Mapping[str, Any]) -> bytes:
    """The bytes; some files have their base64, a letter at a time."""
    value = metadata.get("tokenizer.ggml.precompiled_charsmap", b"")
    if isinstance(value, list) and {str}.issuperset(map(type, value)):
        try:
            return base64.b64decode("".join(value), validate=True)
        except ValueError as error:
            raise ModelError(f"{_key('precompiled_charsmap')}: {error}") from error
    if isinstance(value, array.array) and value.typecode in "bB":
        return value.tobytes()
    if value != b"":
        raise ModelError(f"{_key('precompiled_charsmap')}: expected an array of bytes")
    return b""


def _pre_tokenizer(metadata: Mapping[str, Any], model: str) -> PreTokenizer:
    if model == "gemma4":
        return PRE_TOKENIZERS["gemma4"]
    if model != "gpt2":
        return PreTokenizer(())
    name = _value(metadata, "pre", str, "")
    if not name:
        log.warning("the file names no pre-tokenizer; answers will be worse than the model's. Convert the model again")
        name = "default"
    if name not in PRE_TOKENIZERS:
        raise ModelError(f"{_key('pre')}: the pre-tokenizer {name!r} is not supported")
    return PRE_TOKENIZERS[name]


def _roles(metadata: Mapping[str, Any], defaults: Mapping[str, int], pre: PreTokenizer, count: int) -> dict[str, int]:
    roles = {role: i for role, i in defaults.items() if i < count and (pre.default_bos or role != "bos")}
    for role, names in ROLE_KEYS.items():
        for name in names:
            token = _value(metadata, name, int, -1)
            if 0 <= token < count:
                roles[role] = token
            elif "tokenizer.ggml." + name in metadata:
                log.warning("%s: %d is no token; ignored", _key(name), token)
    return roles


def _more_ends(metadata: Mapping[str, Any], count: int) -> set[int]:
    """Ends that Ollama's own converter lists."""
    if "tokenizer.ggml.eos_token_ids" not in metadata:
        return set()
    return {token for token in _numbers(metadata, "eos_token_ids", "iIqQ", 0) if 0 <= token < count}


def _names(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": str(metadata.get("general.name", "")).lower(),
        "pre": str(metadata.get("tokenizer.ggml.pre", "")),
        "architecture": str(metadata.get("general.architecture", "")),
    }
