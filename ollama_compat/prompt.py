"""From messages to the text that the model reads: by the Jinja template of its file, or by a Go template."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ollama_compat import output, request_log
from ollama_compat.call import Call
from ollama_compat.errors import ApiError, InternalError
from ollama_compat.failures import PromptTooLong, engine_error
from ollama_compat.output import OutputParser
from ollama_compat.resident import Resident
from ollama_compat.services import Services
from ollama_compat.store import StoredModel
from ollama_compat.template import protect, protect_messages, protect_value
from ollama_compat.template.errors import TemplateError
from ollama_compat.template.gotemplate import Template
from ollama_compat.template.messages import render as render_go
from runtime.frames import BREAK, Failed

_LOG = logging.getLogger(__name__)

Message = dict[str, Any]
Tools = list[dict[str, Any]] | None  # None: the request has none; a Go template tells that from an empty list
Render = Callable[[Sequence[Message]], Awaitable[str]]

CHATML = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""What a model without any chat template is asked with; the engine below Ollama does the same."""

_NO_VISION_CHAT = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
_NO_VISION = "Multimodal data provided, but model does not support multimodal requests."


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, and what reads the answer to it."""

    text: str
    parser: OutputParser | None  # None: everything is content
    native: bool = False  # Ollama lets its engine make this one

    def shown(self) -> str:
        """The text for a reader."""
        return self.text.replace(BREAK, "")


async def for_chat(services: Services, call: Call, resident: Resident, messages: list[Message], tools: Tools) -> Prompt:
    """The prompt of a conversation."""
    if is_native(call.stored):
        _refuse_images(call.stored, messages, ApiError(500, engine_error(500, _NO_VISION_CHAT, "server_error")))
        return dataclasses.replace(await _native(services, call, resident, messages, tools), native=True)
    return await _rendered(call, resident, messages, tools)


async def for_generate(services: Services, call: Call, resident: Resident, messages: list[Message]) -> Prompt:
    """The prompt of /api/generate where it is made like that of a conversation."""
    if call.stored.chat_template and is_native(call.stored):
        return await _native(services, call, resident, messages, [])
    return await _rendered(call, resident, messages, [])


def refuse_images(stored: StoredModel, messages: Sequence[Message]) -> None:
    """Raises the error of a model that cannot see when it is shown something."""
    _refuse_images(stored, messages, ApiError(400, engine_error(400, _NO_VISION, "invalid_request_error")))


def _refuse_images(stored: StoredModel, messages: Sequence[Message], error: ApiError) -> None:
    if any(message.get("images") for message in messages) and "vision" not in stored.capabilities():
        raise error


# ---------------------------------------------------------------- Jinja


async def _native(services: Services, call: Call, resident: Resident, messages: list[Message], tools: Tools) -> Prompt:
    source = call.stored.chat_template or CHATML
    loaded = resident.loaded
    safe_tools = protect_value(tools, loaded.control_tokens)
    effort = {"reasoning_effort": call.think} if isinstance(call.think, str) else {}

    async def render(part: Sequence[Message]) -> str:
        return await services.jinja.render(
            source,
            messages=protect_messages(part, loaded.control_tokens),
            tools=safe_tools,
            enable_thinking=call.think is None or bool(call.think),
            bos_token=loaded.bos_token,
            eos_token=loaded.eos_token,
            strip_bos=loaded.add_bos,
            extra=effort,
        )

    text = await _fit(call, resident, messages, render)
    prefill = messages[-1]["content"].replace(BREAK, "") if messages[-1]["role"] == "assistant" else ""
    parser = output.native(source, tools=tools, think=bool(call.think), prompt_tail=text.removesuffix(prefill))
    if prefill and text.endswith(prefill):
        parser = _Prefilled(parser, prefill)
    await _check_length(call, resident, text)
    return Prompt(text, parser)


class _Prefilled:
    """A parser whose answer begins with the text that the client put into the assistant's mouth."""

    def __init__(self, parser: OutputParser, prefill: str) -> None:
        self._parser = parser
        self._prefill = prefill

    @property
    def preserved(self) -> tuple[str, ...]:
        return self._parser.preserved

    @property
    def reasoning(self) -> output.Reasoning | None:
        found = self._parser.reasoning
        if found is None or found.end in self._prefill:
            return None
        if found.begun or not self._prefill.strip():
            return found
        begun = self._prefill.lstrip().startswith(found.start)
        return dataclasses.replace(found, begun=True) if begun else None

    def feed(self, text: str) -> list[output.Event]:
        text, self._prefill = self._prefill + text, ""
        return self._parser.feed(text)

    def finish(self) -> list[output.Event]:
        return (self._parser.feed(self._prefill) if self._prefill else []) + self._parser.finish()


async def _check_length(call: Call, resident: Resident, text: str) -> None:
    """A client that asked for less context than the runner has gets the error that it would get from a smaller one."""
    limit = call.num_ctx(resident.loaded)
    if limit == resident.loaded.num_ctx or len(text) < limit:
        return
    count = len(await resident.runner.tokenize(text, add_special=True))
    if count > limit:
        message = f"request ({count} tokens) exceeds the available context size ({limit} tokens), try increasing it"
        failed = Failed(None, "context_length", message, count, limit)
        raise PromptTooLong(400, engine_error(400, message, "exceed_context_size_error", failed))


# ---------------------------------------------------------------- cutting


async def _fit(call: Call, resident: Resident, messages: list[Message], render: Render) -> str:
    """The prompt of the latest messages that fit the context: old ones go first, system messages and the last one stay.

    Rendering and tokenizing are the costs, so the number of messages to drop is found by bisection.
    """
    if not call.request.truncate or len(messages) == 1:
        return await render(messages)
    limit = call.num_ctx(resident.loaded)
    texts: dict[int, str] = {}

    async def fits(start: int) -> bool:
        kept = [message for message in messages[:start] if message["role"] == "system"]
        texts[start] = await render([*kept, *messages[start:]])
        if len(texts[start].encode()) <= limit:
            return True  # a token is a byte or more
        return len(await resident.runner.tokenize(texts[start])) <= limit

    low, high = 0, len(messages) - 1  # the answer is in [low, high]
    if await fits(0):
        return texts[0]
    while low < high:
        middle = (low + high) // 2
        if await fits(middle):
            high = middle
        else:
            low = middle + 1
    if low not in texts:
        await fits(low)
    _note_dropped(messages[:low], limit)
    return texts[low]


def _note_dropped(dropped: Sequence[Message], limit: int) -> None:
    """Tells the log and the client that the beginning of a conversation is not read."""
    count = sum(message["role"] != "system" for message in dropped)
    _LOG.warning("the %d oldest messages of a conversation are left out: the context has %d tokens", count, limit)
    request_log.note().dropped_messages = count


# ---------------------------------------------------------------- Go templates


def is_native(stored: StoredModel) -> bool:
    """Whether prompts of conversations are made with the Jinja template of the model's file.

    A model that names one of Ollama's built-in renderers is served by the template that its file has as well.
    """
    source = stored.prompt_source
    return source == "jinja" or (source != "go" and stored.chat_template is not None)


async def _rendered(call: Call, resident: Resident, messages: list[Message], tools: Tools) -> Prompt:
    template = Template.parse(call.stored.go.source)
    control = resident.loaded.control_tokens
    safe_tools = protect_value(tools, control)

    async def render(part: Sequence[Message]) -> str:
        return await _execute(template, call, messages=tag_images(protect_messages(part, control)), tools=safe_tools)

    text = _without_bos(await _fit(call, resident, messages, render), resident)
    return Prompt(text, output.generic(template, tools=tools, think=bool(call.think), prompt_tail=text))


async def by_own_template(call: Call, resident: Resident, source: str, suffix: str, messages: list[Message]) -> Prompt:
    """The prompt by the request's own template, or by the model's where text is to be inserted before `suffix`."""
    control = resident.loaded.control_tokens
    try:
        template = Template.parse(source or call.stored.go.source)
        if suffix:
            values = {"prompt": protect(messages[-1]["content"], control), "suffix": protect(suffix, control)}
            text = await _execute(template, call, **values)
        else:
            text = await _execute(template, call, messages=tag_images(protect_messages(messages, control)))
    except TemplateError as error:
        raise InternalError(error.message) from None
    own = Template.parse(call.stored.go.source)
    return Prompt(text, output.generic(own, tools=None, think=bool(call.think), prompt_tail=text))


async def _execute(template: Template, call: Call, **values: Any) -> str:
    """Runs a Go template beside the event loop: one may take seconds."""
    return await asyncio.to_thread(functools.partial(render_go, template, think=call.think, **values))


def _without_bos(text: str, resident: Resident) -> str:
    """Without the token that the tokenizer adds itself."""
    return text.removeprefix(resident.loaded.bos_token) if resident.loaded.add_bos else text


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
