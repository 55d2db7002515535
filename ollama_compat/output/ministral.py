"""Ministral 3: `[TOOL_CALLS]name[ARGS]{...}`, reasoning between `[THINK]` and `[/THINK]`."""

from __future__ import annotations

from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.events import CallError
from ollama_compat.output.tool_json import Scanner, read_object

_ARGS, _CALL_ID = "[ARGS]", "[CALL_ID]"  # some write an id between name and arguments


class Ministral(Blocks):
    """Parses one answer. Only tools of the request can be called."""

    THINK = ("[THINK]", "[/THINK]")
    CALL = ("[TOOL_CALLS]", _ARGS)

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, thinks=False)
        self._name = ""
        self._scanner = Scanner()

    def _content(self) -> bool:
        tag = self._until((self.CALL[0], self.THINK[0]), self._say)
        return self._to(self._collect if tag == self.CALL[0] else self._think) if tag else False

    def _think(self) -> bool:
        if self._until((self.THINK[1],), self._reason, trim=False):
            return self._skip_to(self._content)
        return False

    def _collect(self) -> bool:
        """The name of the tool."""
        name, tag, rest = self._held.partition(_ARGS)
        if not tag:
            return False
        self._name, self._held, self._scanner = name, rest, Scanner()
        return self._to(self._arguments)

    def _arguments(self) -> bool:
        end = self._scanner.scan(self._held)
        if end < 0:
            return False
        raw, self._held = self._held[:end], self._held[end:]
        self._take_call(raw)
        return self._to(self._content)

    def _read_call(self, raw: str) -> None:
        name = self._name.partition(_CALL_ID)[0]
        if not self._lenient and not any((tool.get("function") or {}).get("name") == name for tool in self.tools):
            raise CallError(f"tool '{name}' not found")
        self._call(name, read_object(raw))

    def _written(self, raw: str) -> str:
        return self.CALL[0] + self._name + _ARGS + raw


def make(setup: Setup) -> Ministral:
    """The parser; the models may reason unasked."""
    return Ministral(setup)
