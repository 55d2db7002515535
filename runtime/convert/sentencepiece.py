"""tokenizer.model: the pieces of a SentencePiece model, read from its protocol buffer.

Fields: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

_PIECES, _NORMALIZER = 1, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_DUMMY_PREFIX = 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of a piece; GGUF took its numbers of `token_type` from here."""


class NotSentencePiece(Exception):
    """The bytes are no SentencePiece model: Llama 3's file of that name is another format, for instance."""


@dataclasses.dataclass(frozen=True, slots=True)
class SentencePiece:
    """A vocabulary. The three lists are of the same length."""

    tokens: list[str]
    scores: list[float]
    types: list[int]
    adds_prefix: bool  # a text gets a space before its first word


def read_model(data: bytes) -> SentencePiece:
    """The model in `data`; NotSentencePiece."""
    tokens, scores, types = [], [], []
    adds_prefix = True
    for field, value in _fields(data):
        if field == _PIECES:
            token, score, kind = _piece(_as_bytes(value))
            tokens.append(token)
            scores.append(score)
            types.append(kind)
        elif field == _NORMALIZER:
            for inner, flag in _fields(_as_bytes(value)):
                adds_prefix = bool(flag) if inner == _DUMMY_PREFIX else adds_prefix
    if not tokens:
        raise NotSentencePiece
    return SentencePiece(tokens, scores, types, adds_prefix)


def _piece(data: bytes) -> tuple[str, float, int]:
    token, score, kind = "", 0.0, NORMAL
    for field, value in _fields(data):
        if field == _PIECE:
            token = _text(_as_bytes(value))
        elif field == _SCORE and isinstance(value, bytes) and len(value) == 4:
            (score,) = struct.unpack("<f", value)
        elif field == _TYPE and isinstance(value, int):
            kind = value
    # pieces that a user defined are found like any other; which are special, the other files say
    return token, score, kind if kind in (UNKNOWN, CONTROL, UNUSED, BYTE) else NORMAL


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise NotSentencePiece from None


def _as_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise NotSentencePiece
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers of fields and their values; numbers of a fixed width stay bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise NotSentencePiece
        if length > len(data) - at:
            raise NotSentencePiece
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if not data[at - 1] & 128:
            return value, at
    raise NotSentencePiece
