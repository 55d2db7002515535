"""Calls in the manner of Python, `name(key='value', other=[1, 2])`: Olmo's loose reading of them, and LFM2's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from ollama_compat.gospace import SPACE

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\'": "'", "\\n": "\n", "\\t": "\t", "\\r": "\r"}
_ESCAPE = re.compile("|".join(re.escape(escape) for escape in _ESCAPES))
_PYTHON_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[A-Za-z_][A-Za-z0-9_]*|.""", re.DOTALL)
_OPENING, _CLOSING = "([{", ")]}"


class NoCall(ValueError):
    """The text is no call."""


def number(text: str) -> int | float | None:
    """The number that the text is; None when it is none that JSON has."""
    if _INTEGER.fullmatch(text) and -(1 << 63) <= int(text) < 1 << 63:
        return int(text)
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


# ---------------------------------------------------------------- Olmo


def loose_arguments(text: str) -> dict[str, Any] | None:
    """`key=value` pairs; None when something there is no pair."""
    found: dict[str, Any] = {}
    for part in _parts(text):
        key, equals, value = part.partition("=")
        if not equals:
            return None
        try:
            found[key.strip(SPACE)] = _loose_value(value)
        except NoCall:
            return None
    return found


def _parts(text: str) -> Iterator[str]:
    """Cut at the commas that stand in no brackets and no quotes; what is empty is left out."""
    return (stripped for part in _split(text) if (stripped := part.strip(SPACE)))


def _split(text: str) -> Iterator[str]:
    depth, quote, start, escaped = 0, "", 0, False
    for at, char in enumerate(text):
        if escaped or (quote and char != quote):
            escaped = not escaped and char == "\\"
        elif char in "\"'":
            quote = "" if quote else char
        elif char == "," and depth == 0:
            yield text[start:at]
            start = at + 1
        else:
            depth += (char in _OPENING) - (char in _CLOSING)
    yield text[start:]


def _loose_value(text: str) -> Any:
    text = text.strip(SPACE)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return _ESCAPE.sub(lambda match: _ESCAPES[match[0]], text[1:-1])
    if text in _WORDS or text == "nil":
        return _WORDS.get(text)
    if (value := number(text)) is not None:
        return value
    if text.startswith("[") and text.endswith("]"):
        return [_loose_value(part) for part in _parts(text[1:-1])]
    if text.startswith("{") and text.endswith("}"):
        return dict(_loose_pair(part) for part in _parts(text[1:-1]))
    return text


def _loose_pair(text: str) -> tuple[str, Any]:
    key, colon, value = text.partition(":")
    if not colon:
        raise NoCall(text)
    key = key.strip(SPACE)
    quoted = len(key) > 1 and key[0] == key[-1] and key[0] in "\"'"
    return key[1:-1] if quoted else key, _loose_value(value)


# ---------------------------------------------------------------- LFM2


def calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and arguments of `[name(...), name(...)]`, brackets or none. NoCall when something there is no call."""
    text = text.strip(SPACE)
    if text.startswith("[") and text.endswith("]") and len(text) > 1:
        text = text[1:-1]
    found = []
    while text := text.strip(SPACE).removeprefix(",").strip(SPACE):
        name, paren, rest = text.partition("(")
        end = _closing(rest) if paren else -1
        if not name.strip(SPACE) or end < 0:
            raise NoCall(text)
        found.append((name.strip(SPACE), _arguments(rest[:end])))
        text = rest[end + 1 :]
    if not found:
        raise NoCall(text)
    return found


def _closing(text: str) -> int:
    """Where the parenthesis that opened before `text` closes; -1: nowhere."""
    depth, quote, escaped = 1, "", False
    for at, char in enumerate(text):
        if escaped or (quote and char != quote):
            escaped = not escaped and char == "\\"
        elif char in "\"'":
            quote = "" if quote else char
        else:
            depth += (char == "(") - (char == ")")
            if depth == 0:
                return at
    return -1


def _arguments(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in _parts(text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip(SPACE) or not value.strip(SPACE):
            raise NoCall(part)
        found[key.strip(SPACE)] = _value(value.strip(SPACE))
    return found


def _value(text: str) -> Any:
    quote = text[0]
    if quote in "\"'":
        if len(text) < 2 or text[-1] != quote:
            raise NoCall(text)
        return text[1:-1]
    if text in _WORDS:
        return _WORDS[text]
    if (value := number(text)) is not None:
        return value
    for candidate in (text, _as_json(text)) if quote in "[{" else ():
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return text


def _as_json(text: str) -> str:
    """A Python literal as JSON."""
    return _PYTHON_TOKEN.sub(_token_as_json, text)


def _token_as_json(match: re.Match[str]) -> str:
    token = match[0]
    if len(token) > 1 and token[0] == "'":
        return '"' + re.sub(r"\\.|\"", _single_as_double, token[1:-1], flags=re.DOTALL) + '"'
    return {"True": "true", "False": "false", "None": "null"}.get(token, token)


def _single_as_double(match: re.Match[str]) -> str:
    return {'"': '\\"', "\\'": "'"}.get(match[0], match[0])
