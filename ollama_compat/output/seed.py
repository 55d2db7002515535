"""Seed-OSS: as Qwen3-Coder, with the prefix `seed:` in its own tags."""

from __future__ import annotations

from ollama_compat.output.blocks import Setup
from ollama_compat.output.qwen3_coder import Qwen3Coder


class Seed(Qwen3Coder):
    """Parses one answer."""

    THINK = ("<seed:think>", "</seed:think>")
    CALL = ("<seed:tool_call>", "</seed:tool_call>")

    def __init__(self, setup: Setup, thinks: bool) -> None:  # its reasoning has other tags than most
        super().__init__(setup, thinks=True)
