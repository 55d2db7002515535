"""Qwen3-Coder: `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`."""

from __future__ import annotations

from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.xml_calls import function_call


class Qwen3Coder(Blocks):
    """Parses one answer; values of arguments get the types that the tools' schemas give them."""

    THINK = ("", "")

    def _read_call(self, raw: str) -> None:
        self._call(*function_call(raw, self.tools))


def make(setup: Setup) -> Qwen3Coder:
    """The parser of Qwen3-Coder, which does not reason."""
    return Qwen3Coder(setup, thinks=False)
