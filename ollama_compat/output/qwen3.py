"""Qwen3: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, reasoning without an opening tag."""

from __future__ import annotations

from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.events import CallError
from ollama_compat.output.tool_json import call_members, read_object


class Qwen3(Blocks):
    """Parses one answer."""

    json_tags = Blocks.CALL

    def _read_call(self, raw: str) -> None:
        try:
            name, arguments = call_members(read_object(raw.strip()), "name", "arguments")
        except CallError as error:
            raise CallError(f"failed to parse JSON: {error.message}") from None
        if not name:
            raise CallError("empty function name")
        self._call(name, arguments)


def instruct(setup: Setup) -> Qwen3:
    """For the models that answer at once."""
    return Qwen3(setup, thinks=False)


def thinking(setup: Setup) -> Qwen3:
    """For the models that reason first."""
    return Qwen3(setup, thinks=setup.thinks(default=True))
