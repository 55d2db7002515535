"""Qwen3.5 and Ornith: reasoning first, then calls as Qwen3-Coder writes them."""

from __future__ import annotations

from ollama_compat.output.blocks import Setup
from ollama_compat.output.qwen3_coder import Qwen3Coder


class Qwen3Point5(Qwen3Coder):
    """Parses one answer."""

    THINK = ("<think>", "</think>")


def make(setup: Setup) -> Qwen3Point5:
    """The parser; the models reason unless they are told not to."""
    return Qwen3Point5(setup, thinks=setup.thinks(default=True) and not setup.prefilled)
