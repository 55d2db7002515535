"""From messages to the text that the model reads: by the Jinja template of its file, or in one of the ways of `rendered`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ollama_compat import output, rendered, structured, told_tools
from ollama_compat.call import Call
from ollama_compat.errors import ApiError
from ollama_compat.failures import PromptTooLong, engine_error
from ollama_compat.fitting import Message, Prompt, Tools, fit
from ollama_compat.output import OutputParser, Wrapper
from ollama_compat.resident import Resident, whole
from ollama_compat.services import Services
from ollama_compat.store import StoredModel
from ollama_compat.template import protect_messages, protect_value
from ollama_compat.template.errors import TemplateError
from runtime.frames import BREAK, Failed

CHATML = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""What a model without any chat template is asked with; the engine below Ollama does the same."""

_NO_VISION_CHAT = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
_NO_VISION = "Multimodal data provided, but model does not support multimodal requests."


async def for_chat(services: Services, call: Call, resident: Resident, messages: list[Message], tools: Tools) -> Prompt:
    """The prompt of a conversation."""
    if call.tells_tools and tools:
        messages = told_tools.spoken(messages, tools)
    if is_native(call.stored):
        _check_for_engine(call, messages)
        return dataclasses.replace(await _native(services, call, resident, messages, tools), chats=True)
    return await rendered.conversation(call, resident, messages, tools)


async def for_generate(services: Services, call: Call, resident: Resident, messages: list[Message]) -> Prompt:
    """The prompt of /api/generate where it is made like that of a conversation."""
    if call.stored.chat_template and is_native(call.stored):
        if call.request.truncate and len(messages) > 1:  # Ollama then lets its engine look whether all of them fit
            _refuse_images_in_chat(call.stored, messages)
        return await _native(services, call, resident, rendered.tag_images(messages), [])
    return await rendered.conversation(call, resident, messages, [])


def refuse_images(stored: StoredModel, messages: Sequence[Message]) -> None:
    """Raises the error of a model that cannot see when it is shown something."""
    _refuse_images(stored, messages, ApiError(400, engine_error(400, _NO_VISION, "invalid_request_error")))


def _check_for_engine(call: Call, messages: Sequence[Message]) -> None:
    """Raises what Ollama's engine refuses of a conversation: a format before pictures. Of a single message a format is refused
    only when the answer begins; of several, Ollama lets its engine look whether all of them fit."""
    try:
        structured.of_format(call.request.format, chats=True)
    except ApiError:
        if call.request.truncate and len(messages) > 1:
            raise
    else:
        _refuse_images_in_chat(call.stored, messages)


def _refuse_images_in_chat(stored: StoredModel, messages: Sequence[Message]) -> None:
    _refuse_images(stored, messages, ApiError(500, engine_error(500, _NO_VISION_CHAT, "server_error")))


def _refuse_images(stored: StoredModel, messages: Sequence[Message], error: ApiError) -> None:
    if any(message.get("images") for message in messages) and "vision" not in stored.capabilities():
        raise error


# ---------------------------------------------------------------- Jinja


async def _native(services: Services, call: Call, resident: Resident, messages: list[Message], tools: Tools) -> Prompt:
    source = call.stored.chat_template or CHATML
    loaded = resident.loaded
    safe_tools = protect_value([] if call.tells_tools else tools, loaded.control_tokens)
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

    try:
        text = await fit(call, resident, messages, render)
    except TemplateError as error:  # Ollama's engine renders these, and its errors are JSON in a text
        raise ApiError(400, engine_error(400, error.message, "invalid_request_error")) from None
    prefill = messages[-1]["content"].replace(BREAK, "") if messages[-1]["role"] == "assistant" else ""
    tail = text.removesuffix(prefill)
    parser = output.native(source, tools=tools, prompt_tail=tail, told=call.tells_tools)
    if prefill and text.endswith(prefill):
        parser = _Prefilled(parser, prefill)
    await _check_length(call, resident, text)
    return Prompt(text, parser, native=True)


class _Prefilled(Wrapper):
    """A parser whose answer begins with the text that the client put into the assistant's mouth."""

    def __init__(self, parser: OutputParser, prefill: str) -> None:
        super().__init__(parser)
        self._prefill = prefill

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
    limit = min(whole(call.num_ctx(resident.loaded)), resident.loaded.num_ctx)
    if limit == resident.loaded.num_ctx or len(text) < limit:
        return
    count = len(await resident.runner.tokenize(text, add_special=True))
    if count > limit:
        message = f"request ({count} tokens) exceeds the available context size ({limit} tokens), try increasing it"
        failed = Failed(None, "context_length", message, count, limit)
        raise PromptTooLong(400, engine_error(400, message, "exceed_context_size_error", failed))


def is_native(stored: StoredModel) -> bool:
    """Whether prompts of conversations are made with the Jinja template of the model's file."""
    return stored.prompt_source == "jinja"
