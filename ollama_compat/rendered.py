"""Prompts that Ollama renders itself, by a built-in renderer or a Go template, and the parsers that read the answers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat import output
from ollama_compat.call import Call
from ollama_compat.errors import InternalError
from ollama_compat.fitting import Message, Prompt, Tools, fit
from ollama_compat.output import OutputParser, Setup
from ollama_compat.resident import Resident
from ollama_compat.store import StoredModel
from ollama_compat.template import protect, protect_messages, protect_value, renderers
from ollama_compat.template.errors import TemplateError
from ollama_compat.template.gotemplate import Template
from ollama_compat.template.messages import Think
from ollama_compat.template.messages import render as render_go

_GEMMA4_LARGE = 12_000_000_000  # parameters


async def conversation(call: Call, resident: Resident, messages: list[Message], tools: Tools) -> Prompt:
    """The prompt of a conversation. InternalError for what the renderer or the template refuses."""
    stored, control = call.stored, resident.loaded.control_tokens
    think, renderer = _think(call), _renderer(stored)
    shown = tools and output.shown_tools(_parser(stored), tools)
    safe_tools = protect_value(None if call.tells_tools else shown, control)

    async def render(part: Sequence[Message]) -> str:
        safe = protect_messages(part, control)
        if renderer:
            return await asyncio.to_thread(renderers.render, renderer, safe, safe_tools, think)
        return await _execute(stored.go.source, think, messages=tag_images(safe), tools=safe_tools)

    try:
        text = await fit(call, resident, messages, render)
    except TemplateError as error:
        raise InternalError(error.message) from None
    bos = _bos(text, renderer, resident)
    setup = Setup(tools or (), think, messages[-1] if messages else None, None if renderer else text)
    return Prompt(text.removeprefix(bos), _answer_parser(stored, setup, told=call.tells_tools), bos=bos)


async def by_own_template(call: Call, resident: Resident, source: str, suffix: str, messages: list[Message]) -> Prompt:
    """The prompt by the request's own template, or by the model's where text is to be inserted before `suffix`."""
    control, think = resident.loaded.control_tokens, _think(call)
    source = source or call.stored.go.source
    values: dict[str, Any] = {"messages": protect_messages(messages, control)}  # pictures have no places here, as in Ollama
    if suffix:
        values = {"prompt": protect(messages[-1]["content"], control), "suffix": protect(suffix, control)}
    try:
        text = await _execute(source, think, **values)
    except TemplateError as error:
        raise InternalError(error.message) from None
    return Prompt(text, _answer_parser(call.stored, Setup(think=think, prompt=text)))


async def _execute(source: str, think: Think, **values: Any) -> str:
    """Runs a Go template beside the event loop: one may take seconds."""
    return await asyncio.to_thread(functools.partial(render_go, Template.parse(source), think=think, **values))


def _think(call: Call) -> Think:
    """How the model is to reason. Harmony knows no more than `high`."""
    return "high" if call.think == "max" and call.stored.prompt_source == "harmony" else call.think


def _bos(text: str, renderer: str, resident: Resident) -> str:
    """What the text begins with and the tokenizer adds itself."""
    if not resident.loaded.add_bos:
        return ""
    tokens = (renderers.RENDERERS[renderer].bos if renderer else resident.loaded.bos_token, "<bos>")
    return next((token for token in tokens if token and text.startswith(token)), "")


# ---------------------------------------------------------------- what reads the answer


def _parser(stored: StoredModel) -> str:
    """The name of the built-in parser that reads the model's answers; "" for none."""
    return stored.config.parser or ("harmony" if stored.prompt_source == "harmony" else "")


def _answer_parser(stored: StoredModel, setup: Setup, *, told: bool = False) -> OutputParser:
    found = output.builtin(_parser(stored), setup)
    if found is not None:
        return found
    template = Template.parse(stored.go.source)
    return output.generic(template, tools=setup.tools, think=bool(setup.think), prompt_tail=setup.prompt or "", told=told)


# ---------------------------------------------------------------- which renderer


def _renderer(stored: StoredModel) -> str:
    """The name of the built-in renderer; "" where a template makes the prompt. One family has two, by the model's size."""
    name = stored.config.renderer
    return _gemma4(stored) if name == "gemma4" else name


def _gemma4(stored: StoredModel) -> str:
    names = (stored.name.short().lower(), stored.name.full().lower())
    for name in names:
        if "e2b" in name or "e4b" in name:
            return "gemma4-small"
        if any(size in name for size in ("12b", "26b", "31b")):
            return "gemma4-large"
    return "gemma4-large" if _parameters(stored.config.model_type) >= _GEMMA4_LARGE else "gemma4-small"


def _parameters(text: str) -> float:
    """The number that stands in a model's config for people, such as `7.2B`; 0 for what is none."""
    units: Mapping[str, float] = {"B": 1e9, "M": 1e6, "K": 1e3}
    try:
        return float(text[:-1]) * units.get(text[-1:].upper(), 0)
    except ValueError:
        return 0


def tag_images(messages: Sequence[Message]) -> list[Message]:
    """Messages in whose text the pictures have their places: `[img-0]` in front, or where the text says `[img]`."""
    tagged, count = [], 0
    for message in messages:
        text, front = message["content"], ""
        for number in range(count, count + len(message.get("images", ()))):
            if "[img]" in text:
                text = text.replace("[img]", f"[img-{number}]", 1)
            else:
                front += f"[img-{number}]"
        count += len(message.get("images", ()))
        tagged.append(message | {"content": front + text})
    return tagged
