"""Ollama's built-in parsers by name: the files of their families, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ollama_compat.output import (
    cogito,
    cohere,
    deepseek3,
    functiongemma,
    gemma4,
    glimmer,
    glm,
    harmony,
    laguna,
    lfm2,
    ministral,
    nemotron_3,
    olmo3,
    qwen3,
    qwen3_5,
    qwen3_coder,
    qwen3_vl,
)
from ollama_compat.output.blocks import Setup
from ollama_compat.output.events import OutputParser
from ollama_compat.output.parser import Parser

PARSERS: Mapping[str, Callable[[Setup], OutputParser]] = {
    "cogito": cogito.make,
    "cohere": cohere.make,
    "deepseek3": deepseek3.make,
    "functiongemma": functiongemma.make,
    "gemma4": gemma4.make,
    "gemma4-no-thinking": gemma4.no_thinking,
    "glimmer": glimmer.make,
    "glm-4.7": glm.glm_4_7,
    "glm-ocr": glm.glm_ocr,
    "harmony": harmony.make,
    "laguna": laguna.laguna,
    "lfm2": lfm2.instruct,
    "lfm2-thinking": lfm2.thinking,
    "ministral": ministral.make,
    "nemotron-3-nano": nemotron_3.make,
    "nemotron-3.5-nano": nemotron_3.make,
    "olmo3": olmo3.make,
    "olmo3-think": olmo3.think,
    "ornith": qwen3_5.make,
    "passthrough": lambda _: Parser(),
    "poolside-v1": laguna.poolside_v1,
    "qwen3": qwen3.instruct,
    "qwen3-coder": qwen3_coder.make,
    "qwen3-thinking": qwen3.thinking,
    "qwen3-vl-instruct": qwen3_vl.instruct,
    "qwen3-vl-thinking": qwen3_vl.thinking,
    "qwen3.5": qwen3_5.make,
}
"""By the name that a Modelfile's PARSER gives."""


def shown_tools(parser: str, tools: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The tools as the model is to be told of them: one family takes only names that are identifiers."""
    return harmony.renamed(tools) if parser == "harmony" else tools
