"""Qwen3-VL: as Qwen3, without a second opening tag."""

from __future__ import annotations

from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.tool_json import call_members, read_object


class Qwen3VL(Blocks):
    """Parses one answer."""

    LEADS = False
    json_tags = Blocks.CALL
    PRESERVED = ("</think>", "<tool_call>", "</tool_call>")

    def _read_call(self, raw: str) -> None:
        self._call(*call_members(read_object(raw), "name", "arguments"))


def instruct(setup: Setup) -> Qwen3VL:
    """For the models that answer at once."""
    return Qwen3VL(setup, thinks=False)


def thinking(setup: Setup) -> Qwen3VL:
    """For the models that reason first; told not to, they answer at once (Ollama takes that answer for reasoning)."""
    return Qwen3VL(setup, thinks=setup.thinks(default=True) and not setup.prefilled)
