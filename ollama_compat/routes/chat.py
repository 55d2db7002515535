"""POST /api/chat."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ollama_compat import answer, call, prompt, replies, stream, told_tools, wire
from ollama_compat.answer import Finished, Piece, Ready, Told
from ollama_compat.call import Call
from ollama_compat.fitting import Prompt
from ollama_compat.gospace import SPACE
from ollama_compat.resident import Resident
from ollama_compat.schema import ChatRequest
from ollama_compat.services import Services, services
from ollama_compat.store import StoredModel


async def chat(request: web.Request) -> web.StreamResponse:
    """Answers a conversation; without messages it loads or unloads the model."""
    body = await wire.read(request, ChatRequest)
    found = await begin(services(request), body)
    if isinstance(found, dict):
        return wire.json_response(found)
    return await (stream.stream(request, found) if body.stream else stream.gather(found, joiner(body)))


async def begin(parts: Services, body: ChatRequest, told: Told | None = None) -> dict[str, Any] | stream.Parts:
    """After the checks: the objects of the answer, which are yet to be made, or the only one where nothing is to be said.

    `told` hears of the end before the last object comes.
    """
    started_ns = time.perf_counter_ns()
    body = dataclasses.replace(body, tools=body.tool_choice.offered(body.tools))
    call.check_logprobs(body)
    stored = await call.find(parts, body)
    if not body.messages and body.keep_alive == 0:
        parts.residency.unload(str(stored.model_path))
        return _bare(body, "unload")
    prepared = _prepare(parts, body, stored, started_ns)
    if not body.messages:
        async with parts.residency.use(prepared.wanted(), body.keep_alive):
            return _bare(body, "load")
    if body.debug_render_only:
        return await _rendered(parts, prepared, body)
    return reply(parts, prepared, body, told)


def _prepare(parts: Services, body: ChatRequest, stored: StoredModel, started_ns: int) -> Call:
    told = bool(body.tools) and told_tools.apply(parts.settings, stored)
    prepared = call.prepare(body, stored, "chat", ["tools"] if body.tools and not told else [], started_ns)
    return dataclasses.replace(prepared, tells_tools=told)


def _bare(body: ChatRequest, reason: str) -> dict[str, Any]:
    return replies.chat_reply(body.model, replies.message(), done_reason=reason)


async def _rendered(parts: Services, prepared: Call, body: ChatRequest) -> dict[str, Any]:
    """The prompt instead of an answer."""
    messages = conversation(prepared.stored, body.messages or [])
    async with parts.residency.use(prepared.wanted(), body.keep_alive) as resident:
        text = await prompt.for_chat(parts, prepared, resident, messages, body.tools)
    images = sum(len(message.get("images", ())) for message in messages)
    return replies.chat_reply(body.model, {"role": "", "content": ""}, debug=replies.debug_info(text.shown(), images))


async def count_tokens(parts: Services, body: ChatRequest) -> int:
    """Tokens of the prompt of the whole conversation, however long it is; 0 where nothing is said and none would be made."""
    stored = await call.find(parts, body)
    body = dataclasses.replace(body, truncate=False, tools=body.tool_choice.offered(body.tools))
    prepared = _prepare(parts, body, stored, time.perf_counter_ns())
    if not body.messages:
        return 0
    async with parts.residency.use(prepared.wanted(), body.keep_alive) as resident:
        text = await prompt.for_chat(parts, prepared, resident, conversation(stored, body.messages or []), body.tools)
        return len(await resident.runner.tokenize(text.text, add_special=True))


async def reply(parts: Services, prepared: Call, body: ChatRequest, told: Told | None = None) -> stream.Parts:
    """The objects of the answer. Tool calls of a native template come with the last one, as from Ollama."""
    messages = conversation(prepared.stored, body.messages or [])
    native = prompt.is_native(prepared.stored)
    calls: list[dict[str, Any]] = []

    async def make_prompt(resident: Resident) -> Prompt:
        return await prompt.for_chat(parts, prepared, resident, messages, body.tools)

    answers = answer.run(parts, prepared, make_prompt, cut=body.truncate and not native, shown=messages)
    async with contextlib.aclosing(answers) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            if isinstance(piece, Ready):
                yield stream.READY
            elif isinstance(piece, Finished):
                if told is not None:
                    told(piece)
                last = replies.message(tool_calls=calls)
                yield replies.chat_reply(body.model, last, done_reason=piece.reason, metrics=piece.metrics)
            else:
                calls += piece.calls if native else []
                if (part := _part(piece, with_calls=not native)) is not None:
                    yield replies.chat_reply(body.model, part, logprobs=piece.logprobs)


def _part(piece: Piece, *, with_calls: bool) -> dict[str, Any] | None:
    """The message of a piece; None when it has nothing to say now."""
    calls = piece.calls if with_calls else []
    if not (piece.content or piece.thinking or piece.logprobs or calls):
        return None
    return replies.message(piece.content, piece.thinking, calls)


def joiner(body: ChatRequest) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Makes one object of the objects of an answer."""

    def join(parts: list[dict[str, Any]]) -> dict[str, Any]:
        """All parts as one: texts joined, calls and log probabilities collected, the rest from the last."""
        if not parts:
            return {**replies.NO_REPLY, "message": {"role": "", "content": ""}, "done": False}
        messages = [part["message"] for part in parts]
        calls = [tool for message in messages for tool in message.get("tool_calls", ())] if body.tools else []
        text = "".join(message["content"] for message in messages)
        thinking = "".join(message.get("thinking", "") for message in messages)
        logprobs = [entry for part in parts for entry in part.get("logprobs", ())]
        return replies.with_logprobs(parts[-1] | {"message": replies.message(text, thinking, calls)}, logprobs)

    return join


def conversation(stored: StoredModel, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The client's messages with what the model brings along: its own messages, and its system text if there is none."""
    system = []
    if stored.system and (not messages or messages[0]["role"] != "system"):
        system = [{"role": "system", "content": stored.system}]
    return without_old_thoughts(stored, [*system, *stored.messages, *messages])


def without_old_thoughts(stored: StoredModel, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two families are not shown the reasoning in their own earlier answers."""
    if stored.config.model_family != "qwen3" and stored.name.model != "deepseek-r1":
        return messages
    last_user = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)
    return [_without_thought(message) if at < last_user else message for at, message in enumerate(messages)]


def _without_thought(message: dict[str, Any]) -> dict[str, Any]:
    body = message["content"].lstrip(SPACE)
    if message["role"] != "assistant" or not (body.startswith("<think>") or "<think>".startswith(body)):
        return message
    return message | {"content": body.partition("</think>")[2].lstrip(SPACE)}


ROUTES = [web.post("/api/chat", chat)]
