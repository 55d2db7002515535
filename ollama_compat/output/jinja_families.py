"""Which family's parser reads the answers to a Jinja template: told by the tags that the template writes.

Ollama leaves these models to llama-server, which reads their calls with a parser made from the template. Here the parsers of
families do it, most of them those that Ollama has built in, and calls that they cannot read are content.
"""

from __future__ import annotations

from collections.abc import Callable

from ollama_compat.output.blocks import Setup
from ollama_compat.output.cogito import Cogito
from ollama_compat.output.cohere import Cohere
from ollama_compat.output.deepseek3 import DeepSeek3
from ollama_compat.output.events import OutputParser
from ollama_compat.output.functiongemma import FunctionGemma
from ollama_compat.output.gemma4 import Gemma4
from ollama_compat.output.glm import GLM
from ollama_compat.output.harmony import Harmony
from ollama_compat.output.kimi_k2 import KimiK2
from ollama_compat.output.laguna import Laguna
from ollama_compat.output.lfm2 import LFM2
from ollama_compat.output.minimax_m2 import MiniMaxM2
from ollama_compat.output.ministral import Ministral
from ollama_compat.output.olmo3 import Olmo3
from ollama_compat.output.qwen3_5 import Qwen3Point5
from ollama_compat.output.qwen3_coder import Qwen3Coder
from ollama_compat.output.seed import Seed

_Make = Callable[[Setup, bool], OutputParser]  # the bool: whether the template knows of reasoning

_FAMILIES: tuple[tuple[tuple[str, ...], _Make], ...] = (
    (("<|start|>", "<|channel|>", "<|message|>"), lambda setup, _: Harmony(setup)),
    (("<seed:tool_call>",), Seed),
    (("<tool_call>", "<function="), lambda setup, thinks: (Qwen3Point5 if thinks else Qwen3Coder)(setup, thinks)),
    (("[gMASK]", "<arg_key>"), GLM),
    (("<tool_call>", "<arg_key>"), lambda setup, thinks: Laguna(setup, thinks, prefilled=False)),
    (("<｜tool▁calls▁begin｜>", "```json"), Cogito),
    (("<｜tool▁calls▁begin｜>",), DeepSeek3),
    (("[TOOL_CALLS]", "[ARGS]"), lambda setup, _: Ministral(setup)),
    (("<|tool_call>", "<|channel>"), lambda setup, _: Gemma4(setup, thinks=True)),
    (("<start_function_call>",), lambda setup, _: FunctionGemma(setup, thinks=False)),
    (("<|tool_call_start|>",), LFM2),
    (("List of tools: ", "<|im_start|>"), LFM2),
    (("<|START_ACTION|>",), lambda setup, _: Cohere(setup)),
    (("<|tool_calls_section_begin|>",), KimiK2),
    (("<minimax:tool_call>",), MiniMaxM2),
    (("<function_calls>",), lambda setup, _: Olmo3(setup, thinks=False)),
)
"""What a template has to contain, and what makes the parser; the first match is taken."""


def family(source: str) -> Callable[[Setup], OutputParser] | None:
    """What makes the parser for answers to the Jinja template `source`; None: no family of Ollama's."""
    thinks = "</think>" in source
    for marks, make in _FAMILIES:
        if all(mark in source for mark in marks):
            return lambda setup: make(setup, thinks)
    return None
