"""Ollama's built-in renderers: prompts of model families that come without a template. One file a family, one line here each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ollama_compat.template.errors import TemplateError
from ollama_compat.template.messages import Think
from ollama_compat.template.renderers import (
    cogito,
    cohere,
    deepseek3_1,
    functiongemma,
    gemma4,
    glimmer,
    glm_4_7,
    laguna,
    lfm2,
    nemotron_3,
    olmo3,
    qwen3_5,
    qwen3_coder,
    qwen3_vl,
)
from ollama_compat.template.renderers.turns import Conversation

__all__ = ["RENDERERS", "Renderer", "render"]


@dataclasses.dataclass(frozen=True, slots=True)
class Renderer:
    """How a prompt is made. `bos` is the text with which it begins, for tokenizers that do not begin by themselves."""

    prompt: Callable[[Conversation], str]
    bos: str = ""


RENDERERS: Mapping[str, Renderer] = {
    "cogito": Renderer(cogito.render, cogito.BOS),
    "cohere": Renderer(cohere.render, cohere.BOS),
    "deepseek3.1": Renderer(deepseek3_1.render, deepseek3_1.BOS),
    "functiongemma": Renderer(functiongemma.render, functiongemma.BOS),
    "gemma4": Renderer(gemma4.small, gemma4.BOS),
    "gemma4-large": Renderer(gemma4.large, gemma4.BOS),
    "gemma4-small": Renderer(gemma4.small, gemma4.BOS),
    "glimmer": Renderer(glimmer.render, glimmer.BOS),
    "glm-4.7": Renderer(glm_4_7.glm_4_7),
    "glm-ocr": Renderer(glm_4_7.glm_ocr),
    "laguna": Renderer(laguna.laguna, laguna.BOS),
    "lfm2": Renderer(lfm2.instruct, lfm2.BOS),
    "lfm2-thinking": Renderer(lfm2.thinking, lfm2.BOS),
    "nemotron-3-nano": Renderer(nemotron_3.nemotron_3),
    "nemotron-3.5-nano": Renderer(nemotron_3.nemotron_3_5),
    "olmo3": Renderer(olmo3.olmo3),
    "olmo3-32b-think": Renderer(olmo3.think_32b),
    "olmo3-think": Renderer(olmo3.think),
    "olmo3.1": Renderer(olmo3.olmo3_1),
    "ornith": Renderer(qwen3_5.ornith),
    "poolside-v1": Renderer(laguna.poolside_v1, laguna.BOS),
    "qwen3-coder": Renderer(qwen3_coder.render),
    "qwen3-vl-instruct": Renderer(qwen3_vl.instruct),
    "qwen3-vl-thinking": Renderer(qwen3_vl.thinking),
    "qwen3.5": Renderer(qwen3_5.qwen3_5),
    "qwen3.8": Renderer(qwen3_5.qwen3_8),
}
"""By the name that a Modelfile's RENDERER gives."""


def render(name: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None, think: Think) -> str:
    """The prompt by a built-in renderer, from messages and tools in the API's JSON form. Raises TemplateError."""
    renderer = RENDERERS.get(name)
    if renderer is None:
        raise TemplateError(f'unknown renderer "{name}"')
    try:
        return renderer.prompt(Conversation.of(messages, tools, think))
    except RecursionError:
        raise TemplateError("exceeded max depth") from None
