"""POST /api/generate."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from aiohttp import web

from ollama_compat import answer, call, prompt, schema, stream, wire
from ollama_compat.call import Call
from ollama_compat.errors import ApiError, BadRequest
from ollama_compat.prompt import Prompt
from ollama_compat.residency import Resident
from ollama_compat.schema import GenerateRequest
from ollama_compat.services import Services, services
from runtime.frames import Done


async def generate(request: web.Request) -> web.StreamResponse:
    """Continues or answers a prompt; without one it loads or unloads the model."""
    started_ns = time.perf_counter_ns()
    body = await wire.read(request, GenerateRequest)
    call.check_logprobs(body)
    parts = services(request)
    stored = await call.find(parts, body)
    if not body.prompt and body.keep_alive == 0:
        parts.residency.unload(str(stored.model_path))
        return wire.json_response(schema.generate_reply(body.model, done_reason="unload"))
    if body.raw and (body.template or body.system or body.context):
        raise BadRequest("raw mode does not support template, system, or context")
    prepared = call.prepare(body, stored, "generate", ["insert"] if body.suffix else [], started_ns)
    if not body.prompt:
        async with parts.residency.use(prepared.wanted(), body.keep_alive):
            return wire.json_response(schema.generate_reply(body.model, done_reason="load"))
    if body.debug_render_only:
        return wire.json_response(await _rendered(parts, prepared, body))
    replies = reply(parts, prepared, body)
    return await (stream.stream(request, replies) if body.stream else stream.gather(replies, _join))


async def _rendered(parts: Services, prepared: Call, body: GenerateRequest) -> dict[str, Any]:
    """The prompt instead of an answer."""
    async with parts.residency.use(prepared.wanted(), body.keep_alive) as resident:
        text = await _prompt(parts, prepared, resident, body)
    return schema.generate_reply(body.model, debug=schema.debug_info(text.shown(), len(body.images or ())))


async def reply(parts: Services, prepared: Call, body: GenerateRequest) -> stream.Parts:
    """The objects of the answer."""
    async with parts.residency.use(prepared.wanted(), body.keep_alive) as resident:
        loaded_ns = time.perf_counter_ns()
        text = await _prompt(parts, prepared, resident, body)
        yield stream.READY
        prompt.refuse_images(prepared.stored, [{"images": body.images}])
        preserved = text.parser.preserved if text.parser else ()
        make = prepared.framer(text.text, resident.loaded, context=body.context or (), preserved=preserved, cut=body.truncate)
        try:
            async with contextlib.aclosing(answer.pieces(resident.runner, make, text.parser)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if isinstance(piece, Done):
                        yield _last(prepared, body, piece, loaded_ns)
                    elif piece.content or piece.thinking or piece.logprobs:
                        yield schema.generate_reply(body.model, piece.content, thinking=piece.thinking, logprobs=piece.logprobs)
        except ApiError as error:
            raise prepared.failure(error, cut=body.truncate) from None


async def _prompt(parts: Services, prepared: Call, resident: Resident, body: GenerateRequest) -> Prompt:
    """The text as it is (raw), by the request's own template or for an insertion, or as a conversation."""
    if body.raw:
        return Prompt(body.prompt, None)
    stored = prepared.stored
    system = body.system or stored.system
    messages = [{"role": "system", "content": system}] if system else []
    if body.context is None:
        messages += stored.messages
    user: dict[str, Any] = {"role": "user", "content": body.prompt}
    messages.append(user | ({"images": body.images} if body.images else {}))
    if body.suffix or body.template:
        return await prompt.by_own_template(prepared, resident, body.template, body.suffix, messages)
    return await prompt.for_generate(parts, prepared, resident, messages)


def _last(prepared: Call, body: GenerateRequest, done: Done, loaded_ns: int) -> dict[str, Any]:
    reason = "length" if done.reason == "length" else "stop"
    context = None if body.raw else done.context
    return schema.generate_reply(body.model, done_reason=reason, context=context, metrics=prepared.metrics(done, loaded_ns))


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """All parts as one: texts joined, log probabilities collected, the rest from the last."""
    last = parts[-1]
    thinking = "".join(part.get("thinking", "") for part in parts)
    joined: dict[str, Any] = {"model": last["model"], "created_at": last["created_at"]}
    joined["response"] = "".join(part["response"] for part in parts)
    joined |= {"thinking": thinking} if thinking else {}
    return joined | {key: value for key, value in last.items() if key not in joined} | _logprobs(parts)


def _logprobs(parts: list[dict[str, Any]]) -> dict[str, Any]:
    entries = [entry for part in parts for entry in part.get("logprobs", ())]
    return {"logprobs": entries} if entries else {}


ROUTES = [web.post("/api/generate", generate)]
