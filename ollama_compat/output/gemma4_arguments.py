"""Arguments in Gemma 4's notation, `{key:<|"|>text<|"|>,other:[1,2]}`, and what Ollama puts right in broken ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ollama_compat.gospace import SPACE
from ollama_compat.output.call_values import properties_of
from ollama_compat.output.tool_json import load_object

QUOTE = '<|"|>'
_QUOTED = re.compile(r'<\|"\|>(.*?)<\|"\|>', re.DOTALL)
_BARE_KEY = re.compile(rf'"(?:[^"\\]|\\.)*"|([{{,])([{SPACE}]*)(\w+):', re.DOTALL)
_OPAQUE = re.compile(rf'{re.escape(QUOTE)}.*?{re.escape(QUOTE)}|"(?:[^"\\]|\\.)*"', re.DOTALL)
_SINGLE_QUOTED = re.compile(
    rf"{_OPAQUE.pattern}|{re.escape(QUOTE)}.*|:([{SPACE}]*)'((?:[^'\\]|\\.)*)'(?:{re.escape(QUOTE)})?", re.DOTALL
)
_LITERAL = frozenset("-0123456789tfn'\"{[")


def arguments(text: str, name: str, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The arguments of a call of the tool `name`; None when they cannot be read, nor put right."""
    found = load_object(_as_json(text))
    if found is not None:
        return found
    candidates = (load_object(_as_json(candidate)) for candidate in _candidates(text, properties_of(tools, name)))
    return next((candidate for candidate in candidates if candidate is not None), None)


def _as_json(text: str) -> str:
    """The notation as JSON: strings in JSON's quotes, keys in quotes."""
    strings: list[str] = []

    def kept(match: re.Match[str]) -> str:
        strings.append(json.dumps(match[1], ensure_ascii=False))
        return f'"\x00{len(strings) - 1}\x00"'

    bare = _BARE_KEY.sub(_with_quotes, _QUOTED.sub(kept, text))
    return re.sub('"\x00([0-9]+)\x00"', lambda match: strings[int(match[1])], bare)


def _with_quotes(match: re.Match[str]) -> str:
    return match[0] if match[1] is None else f'{match[1]}{match[2]}"{match[3]}":'


# ---------------------------------------------------------------- repairs


def _candidates(text: str, properties: Mapping[str, Any]) -> Iterator[str]:
    """Texts that may be what was meant, the likeliest first."""
    closed = _close_string(_requote(text))
    yield closed if closed == text else _close_object(closed)
    raw = _quote_raw(text, properties)
    if raw is not None:
        yield _close_object(_close_string(_requote(raw)))


def _requote(text: str) -> str:
    """Values in single quotes get Gemma's marks; a mark that follows such a value is dropped."""
    return _SINGLE_QUOTED.sub(lambda match: match[0] if match[2] is None else f":{match[1]}{QUOTE}{match[2]}{QUOTE}", text)


def _close_string(text: str) -> str:
    """The last string gets its closing mark, inside of a bracket that follows it."""
    if text.count(QUOTE) % 2 == 0:
        return text
    end = len(text.rstrip(SPACE))
    end -= 1 if end and text[end - 1] in "}]" else 0
    return text[:end] + QUOTE + text[end:]


def _close_object(text: str) -> str:
    body = text.rstrip(SPACE)
    if not text.lstrip(SPACE).startswith("{") or body.endswith("}"):
        return text
    return f"{body}}}{text[len(body) :]}"


def _quote_raw(text: str, properties: Mapping[str, Any]) -> str | None:
    """The first value without marks of a parameter that is a string by its schema gets them. None: there is no such value."""
    for key, described in properties.items():
        if not _takes_text(described or {}):
            continue
        for start in _value_starts(text, key):
            value = text[start:].lstrip(SPACE)
            if value.startswith(QUOTE) or value[:1] in _LITERAL:
                continue
            end = _raw_end(text, start, properties)
            return text[:start] + QUOTE + text[start:end] + QUOTE + text[end:]
    return None


def _value_starts(text: str, key: str) -> Iterator[int]:
    """Where values of `key` begin, outside of strings."""
    found = re.compile(rf"{_OPAQUE.pattern}|[{{,][{SPACE}]*{re.escape(key)}[{SPACE}]*(:)", re.DOTALL)
    return (match.end() for match in found.finditer(text) if match[1])


def _raw_end(text: str, start: int, properties: Mapping[str, Any]) -> int:
    """Where a value without marks ends: at the next parameter, or with the object."""
    for match in re.compile(rf",[{SPACE}]*(\w+)[{SPACE}]*:").finditer(text, start):
        if match[1] in properties:
            return match.start()
    end = len(text.rstrip(SPACE))
    return end - 1 if end > start and text[end - 1] == "}" else len(text)


def _takes_text(described: Mapping[str, Any]) -> bool:
    kind = described.get("type")
    names = [kind] if isinstance(kind, str) else kind or []
    return any(name.lower() == "string" for name in names) or any(
        _takes_text(choice or {}) for choice in described.get("anyOf") or ()
    )
