"""`{"name": ..., "parameters": {...}}` without any tag: Llama 3.1, 3.2 and 3.3.

An object counts as a call where it names a known tool and has parameters; any other JSON in an answer is content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ollama_compat.output.machine import Machine
from ollama_compat.output.tool_json import Scanner, llama_server_id, load_object, named_call

_FIRST_KEYS = ('"name"', '"type"', '"function"', '"parameters"', '"arguments"')


def matches(source: str) -> bool:
    """Whether the Jinja template `source` asks for tool calls in this way."""
    return 'Respond in the format {"name": function name' in source


def make(names: Sequence[str], fresh: bool) -> LlamaCalls:
    """The parser for calls of `names`."""
    return LlamaCalls(names, fresh=fresh)


class LlamaCalls(Machine):
    """Splits calls of `names` from content. `fresh`: nothing came before, so leading white space is dropped."""

    def __init__(self, names: Sequence[str], *, fresh: bool, new_id: Callable[[], str] = llama_server_id) -> None:
        super().__init__(new_id)
        self._names = frozenset(names)
        self._state = self._text
        self._skipped = " \t\r\n" if fresh else ""
        self._scanner = Scanner()

    def _end(self) -> None:
        cut_off = self._state == self._object and any(f'"{name}"' in self._held for name in self._names)
        self._say("" if cut_off else self._held)

    def _text(self) -> bool:
        self._held = self._held.lstrip(self._skipped) if self._skipped else self._held
        before, brace, rest = self._held.partition("{")
        self._say(before)
        self._held = brace + rest
        if brace:
            self._state = self._open
        return bool(brace)

    def _open(self) -> bool:
        """At a brace: whether an object that may be a call begins here."""
        key = self._held[1:].lstrip()
        if any(first.startswith(key) for first in _FIRST_KEYS):
            return False
        if not key.startswith(_FIRST_KEYS):
            return self._content_after_all(1)
        self._scanner = Scanner()
        self._state = self._object
        return True

    def _object(self) -> bool:
        end = self._scanner.scan(self._held)
        if end < 0:
            return False
        call = self._known(self._held[:end])
        if call is None:
            return self._content_after_all(end)
        self._call(*call)
        self._held = self._held[end:]
        self._skipped = " \t\r\n;,"
        self._state = self._text
        return True

    def _known(self, text: str) -> tuple[str, dict[str, Any]] | None:
        """Name and arguments of the call of a known tool."""
        value = load_object(text)
        call = None if value is None else named_call(value)
        if value is None or call is None or call[0] not in self._names:
            return None
        function = value.get("function", value)
        called = "parameters" in function or "arguments" in function
        return call if called else None

    def _content_after_all(self, length: int) -> bool:
        self._say(self._held[:length])
        self._held = self._held[length:]
        self._state = self._text
        return True

    def _say(self, text: str) -> None:
        super()._say(text)
        self._skipped = "" if text else self._skipped
