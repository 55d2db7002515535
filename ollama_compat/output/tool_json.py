"""JSON inside a model's text: where an object ends, and what of it is a tool call."""

from __future__ import annotations

import json
import re
import secrets
import string
from typing import Any

import orjson

from ollama_compat import gojson, gotypes
from ollama_compat.output.events import CallError

_IN_STRING = re.compile(r'["\\]')


class Scanner:
    """Finds where brackets that opened are closed again, in text that grows. Quotes hide brackets, as in JSON.

    `never` is a character that cannot stand outside of a string; the text is `broken` as soon as it does.
    """

    def __init__(self, brackets: str = "{}[]", never: str = "") -> None:
        self._outside = re.compile(f'["{re.escape(brackets + never)}]')
        self._opening = brackets[::2]
        self._depth = 0
        self._in_string = False
        self._position = 0
        self._never = never
        self.start = -1  # where the outermost bracket opened
        self.broken = False

    def scan(self, text: str) -> int:
        """The index behind the bracket that closes the first opening one in `text`; -1 while it is not there.

        Each call gets the same text with more at its end and goes on where the last one stopped.
        """
        while not self.broken and (found := self._next(text)) is not None:
            character = found[0]
            if character == "\\":
                self._position += 1  # the next character is escaped
            elif character == '"':
                self._in_string = not self._in_string
            elif character == self._never:
                self.broken = True
            elif character in self._opening:
                self._depth += 1
                self.start = found.start() if self._depth == 1 else self.start
            elif self._depth > 0:
                self._depth -= 1
                if self._depth == 0:
                    return self._position
        return -1

    def _next(self, text: str) -> re.Match[str] | None:
        found = (_IN_STRING if self._in_string else self._outside).search(text, self._position)
        self._position = max(len(text), self._position) if found is None else found.end()
        return found


def load_object(text: str) -> dict[str, Any] | None:
    """The JSON object `text`, line breaks in its strings forgiven; None when it is none or could not be sent to a client."""
    try:
        value = json.loads(text, strict=False, parse_int=_integer)
        if "\\u" in text:  # half of a surrogate pair may have been written
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
        orjson.dumps(value)
    except (ValueError, RecursionError, orjson.JSONEncodeError):
        return None
    return value if isinstance(value, dict) else None


def read_object(text: str) -> dict[str, Any]:
    """The JSON object `text`, or a CallError with Go's words for what is wrong with it. `null` is an empty one."""
    value = load_object(text)
    if value is not None:
        return value
    if text.strip() == "null":
        return {}
    raise CallError(_fault(text))


def _fault(text: str) -> str:
    if not text.strip():
        return "unexpected end of JSON input"
    try:
        found = gojson.loads(text.encode("utf-8", "replace"))
    except gojson.SyntaxFault as fault:
        return "unexpected end of JSON input" if str(fault) == "unexpected EOF" else str(fault)
    if isinstance(found, dict):
        return "invalid character after top-level value"
    return f"json: cannot unmarshal {gotypes.word(found)} into Go value of type map[string]interface {{}}"


def members(value: dict[str, Any], *names: str) -> list[Any]:
    """The members of an object by name, exactly or by case folding, as Go finds them; None for what is not there."""
    found = dict(gotypes.match_members(value, dict.fromkeys(names)))
    return [found.get(name) for name in names]


def call_members(value: dict[str, Any], name: str, arguments: str) -> tuple[str, dict[str, Any]]:
    """A call's name and arguments, which stand under these names; "" and {} for what is not there. CallError for wrong types."""
    called, given = members(value, name, arguments)
    if not isinstance(called, str | None):
        raise CallError(f"json: cannot unmarshal {gotypes.word(called)} into Go struct field .{name} of type string")
    if not isinstance(given, dict | None):
        raise CallError("Value looks like object, but can't find closing '}' symbol")
    return called or "", given or {}


def named_call(value: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of `{"name": ..., "arguments": {...}}` (or `parameters`, or all of it below `function`)."""
    function = value.get("function")
    if isinstance(function, dict):
        value = function
    name = value.get("name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = load_object(arguments)
    return (name, arguments) if isinstance(name, str) and name and isinstance(arguments, dict) else None


def call_id(value: dict[str, Any]) -> str:
    """The id that a model gave to a call; "" for none."""
    name = value.get("id")
    return name if isinstance(name, str) else ""


def llama_server_id() -> str:
    """The id of a tool call as llama-server makes it up."""
    return _random(string.ascii_letters + string.digits, 32)


def ollama_id() -> str:
    """The id of a tool call as Ollama makes it up."""
    return "call_" + _random(string.ascii_lowercase + string.digits, 8)


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


def _integer(digits: str) -> int | float:
    """Integers beyond 64 bits become floats, as in other JSON readers."""
    if len(digits) > 20:
        return float(digits)
    value = int(digits)
    return value if -(1 << 63) <= value < 1 << 64 else float(value)
