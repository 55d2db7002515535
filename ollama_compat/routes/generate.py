"""POST /api/generate."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any

from aiohttp import web

from ollama_compat import answer, call, prompt, rendered, replies, stream, wire
from ollama_compat.answer import Finished, Ready, Told
from ollama_compat.call import Call
from ollama_compat.errors import BadRequest
from ollama_compat.fitting import Prompt
from ollama_compat.output import Unsplit
from ollama_compat.resident import Resident
from ollama_compat.schema import GenerateRequest
from ollama_compat.services import Services, services


async def generate(request: web.Request) -> web.StreamResponse:
    """Continues or answers a prompt; without one it loads or unloads the model."""
    body = await wire.read(request, GenerateRequest)
    found = await begin(services(request), body)
    if isinstance(found, dict):
        return wire.json_response(found)
    return await (stream.stream(request, found) if body.stream else stream.gather(found, join))


async def begin(
    parts: Services, body: GenerateRequest, told: Told | None = None, *, split: bool = True
) -> dict[str, Any] | stream.Parts:
    """After the checks: the objects of the answer, which are yet to be made, or the only one where nothing is to be said.

    `told` hears of the end before the last object comes. Without `split`, reasoning stays in the text of a model whose own
    template makes the prompt.
    """
    started_ns = time.perf_counter_ns()
    call.check_logprobs(body)
    stored = await call.find(parts, body)
    if not body.prompt and body.keep_alive == 0:
        parts.residency.unload(str(stored.model_path))
        return replies.generate_reply(body.model, done_reason="unload")
    if body.raw and (body.template or body.system or body.context):
        raise BadRequest("raw mode does not support template, system, or context")
    prepared = call.prepare(body, stored, "generate", ["insert"] if body.suffix else [], started_ns)
    if not body.prompt:
        async with parts.residency.use(prepared.wanted(), body.keep_alive):
            return replies.generate_reply(body.model, done_reason="load")
    if body.debug_render_only:
        return await _rendered(parts, prepared, body)
    return reply(parts, prepared, body, told, split=split)


async def _rendered(parts: Services, prepared: Call, body: GenerateRequest) -> dict[str, Any]:
    """The prompt instead of an answer, behind the text of an earlier one's tokens."""
    async with parts.residency.use(prepared.wanted(), body.keep_alive) as resident:
        before = await resident.runner.detokenize(body.context) if body.context else ""
        text = before + (await _prompt(parts, prepared, resident, body)).shown()
    return replies.generate_reply(body.model, debug=replies.debug_info(text, len(_pictures(prepared, body))))


async def reply(
    parts: Services, prepared: Call, body: GenerateRequest, told: Told | None = None, *, split: bool = True
) -> stream.Parts:
    """The objects of the answer."""

    async def make_prompt(resident: Resident) -> Prompt:
        found = await _prompt(parts, prepared, resident, body)
        if split or not found.native or found.parser is None:
            return found
        return dataclasses.replace(found, parser=Unsplit(found.parser))

    pictures = [{"images": _pictures(prepared, body)}]
    answers = answer.run(parts, prepared, make_prompt, cut=body.truncate, context=body.context or (), shown=pictures)
    async with contextlib.aclosing(answers) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            if isinstance(piece, Ready):
                yield stream.READY
            elif isinstance(piece, Finished):
                if told is not None:
                    told(piece)
                context = None if body.raw else piece.context
                yield replies.generate_reply(body.model, done_reason=piece.reason, context=context, metrics=piece.metrics)
            elif piece.content or piece.thinking or piece.logprobs:
                yield replies.generate_reply(body.model, piece.content, thinking=piece.thinking, logprobs=piece.logprobs)


def _pictures(prepared: Call, body: GenerateRequest) -> list[str]:
    """What the model has to see: pictures of the request, and of the messages that stand before it."""
    before = () if body.raw or body.context is not None else prepared.stored.messages
    return [*(image for message in before for image in message.get("images", ())), *(body.images or ())]


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
        return await rendered.by_own_template(prepared, resident, body.template, body.suffix, messages)
    return await prompt.for_generate(parts, prepared, resident, messages)


def join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """All parts as one: texts joined, log probabilities collected, the rest from the last."""
    if not parts:
        return {**replies.NO_REPLY, "response": "", "done": False}
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
