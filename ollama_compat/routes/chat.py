"""POST /api/chat."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from aiohttp import web

from ollama_compat import answer, call, prompt, schema, stream, wire
from ollama_compat.answer import Piece
from ollama_compat.call import Call
from ollama_compat.errors import ApiError
from ollama_compat.schema import ChatRequest
from ollama_compat.services import Services, services
from ollama_compat.store import StoredModel
from runtime.frames import Done


async def chat(request: web.Request) -> web.StreamResponse:
    """Answers a conversation; without messages it loads or unloads the model."""
    started_ns = time.perf_counter_ns()
    body = await wire.read(request, ChatRequest)
    call.check_logprobs(body)
    parts = services(request)
    stored = await call.find(parts, body)
    if not body.messages and body.keep_alive == 0:
        parts.residency.unload(str(stored.model_path))
        return wire.json_response(_bare(body, "unload"))
    prepared = call.prepare(body, stored, "chat", ["tools"] if body.tools else [], started_ns)
    if not body.messages:
        async with parts.residency.use(prepared.wanted(), body.keep_alive):
            return wire.json_response(_bare(body, "load"))
    if body.debug_render_only:
        return wire.json_response(await _rendered(parts, prepared, body))
    replies = reply(parts, prepared, body)
    return await (stream.stream(request, replies) if body.stream else stream.gather(replies, _joiner(body)))


def _bare(body: ChatRequest, reason: str) -> dict[str, Any]:
    return schema.chat_reply(body.model, schema.message(), done_reason=reason)


async def _rendered(parts: Services, prepared: Call, body: ChatRequest) -> dict[str, Any]:
    """The prompt instead of an answer."""
    messages = conversation(prepared.stored, body.messages or [])
    async with parts.residency.use(prepared.wanted(), body.keep_alive) as resident:
        text = await prompt.for_chat(parts, prepared, resident, messages, body.tools)
    images = sum(len(message.get("images", ())) for message in messages)
    return schema.chat_reply(body.model, {"role": "", "content": ""}, debug=schema.debug_info(text.shown(), images))


async def reply(parts: Services, prepared: Call, body: ChatRequest) -> stream.Parts:
    """The objects of the answer. Tool calls of a native template come with the last one, as from Ollama."""
    messages = conversation(prepared.stored, body.messages or [])
    late = prompt.is_native(prepared.stored)
    calls: list[dict[str, Any]] = []
    async with parts.residency.use(prepared.wanted(), body.keep_alive) as resident:
        loaded_ns = time.perf_counter_ns()
        text = await prompt.for_chat(parts, prepared, resident, messages, body.tools)
        yield stream.READY
        cut = body.truncate and not late
        preserved = text.parser.preserved if text.parser else ()
        make = prepared.framer(text.text, resident.loaded, preserved=preserved, cut=cut)
        try:
            async with contextlib.aclosing(answer.pieces(resident.runner, make, text.parser)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if isinstance(piece, Done):
                        yield _last(prepared, piece, calls, loaded_ns)
                    else:
                        calls += piece.calls if late else []
                        if (part := _part(piece, with_calls=not late)) is not None:
                            yield schema.chat_reply(body.model, part, logprobs=piece.logprobs)
        except ApiError as error:
            raise prepared.failure(error, cut=cut) from None


def _part(piece: Piece, *, with_calls: bool) -> dict[str, Any] | None:
    """The message of a piece; None when it has nothing to say now."""
    calls = piece.calls if with_calls else []
    if not (piece.content or piece.thinking or piece.logprobs or calls):
        return None
    return schema.message(piece.content, piece.thinking, calls)


def _last(prepared: Call, done: Done, calls: list[dict[str, Any]], loaded_ns: int) -> dict[str, Any]:
    reason = "length" if done.reason == "length" else "stop"
    part = schema.message(tool_calls=calls)
    return schema.chat_reply(prepared.request.model, part, done_reason=reason, metrics=prepared.metrics(done, loaded_ns))


def _joiner(body: ChatRequest) -> Any:
    def join(parts: list[dict[str, Any]]) -> dict[str, Any]:
        """All parts as one: texts joined, calls and log probabilities collected, the rest from the last."""
        messages = [part["message"] for part in parts]
        calls = [tool for message in messages for tool in message.get("tool_calls", ())] if body.tools else []
        text = "".join(message["content"] for message in messages)
        thinking = "".join(message.get("thinking", "") for message in messages)
        logprobs = [entry for part in parts for entry in part.get("logprobs", ())]
        return schema.with_logprobs(parts[-1] | {"message": schema.message(text, thinking, calls)}, logprobs)

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
    body = message["content"].lstrip()
    if message["role"] != "assistant" or not body.startswith("<think>"):
        return message
    return message | {"content": body.partition("</think>")[2].lstrip()}


ROUTES = [web.post("/api/chat", chat)]
