"""Nemotron 3 Nano: reasoning first, then calls as Qwen3-Coder writes them."""

from __future__ import annotations

from ollama_compat.gospace import SPACE
from ollama_compat.output.blocks import Setup
from ollama_compat.output.qwen3_coder import Qwen3Coder


class Nemotron3(Qwen3Coder):
    """Parses one answer; white space before the reasoning is dropped."""

    THINK = ("<think>", "</think>")

    def _lead(self) -> bool:
        self._held = self._held.lstrip(SPACE)
        return super()._lead()


def make(setup: Setup) -> Nemotron3:
    """The parser; the models reason unless they are told not to."""
    return Nemotron3(setup, thinks=setup.thinks(default=True) and not setup.prefilled)
