"""The routes of Anthropic's dialect of the API."""

from __future__ import annotations

import dataclasses

from aiohttp import web

from ollama_compat import call, stream, wire
from ollama_compat.anthropic import reply
from ollama_compat.anthropic.messages import MessagesRequest, check, to_native
from ollama_compat.routes import chat as native_chat
from ollama_compat.schema import ChatRequest
from ollama_compat.services import Services, services
from ollama_compat.turns import Heard


async def messages(request: web.Request) -> web.StreamResponse:
    """Answers a conversation."""
    body = await wire.read_enveloped(request, MessagesRequest, "anthropic", reply.envelope)
    check(body)
    native, heard = await _lenient(services(request), to_native(body)), Heard()
    found = await native_chat.begin(services(request), native, heard)
    if native.stream:
        events = stream.convert(found, reply.Events(body, heard).feed)
        return await stream.stream(request, events, stream.named_events(reply.failed))
    whole = found if isinstance(found, dict) else await stream.whole(found, native_chat.joiner(native))
    return wire.json_response(reply.message(whole, heard), content_type=wire.PLAIN_JSON)


async def count_tokens(request: web.Request) -> web.Response:
    """Counts the tokens of the prompt that a request would make."""
    body = await wire.read_enveloped(request, MessagesRequest, "anthropic", reply.envelope)
    check(dataclasses.replace(body, max_tokens=1))
    native = await _lenient(services(request), to_native(body))
    tokens = await native_chat.count_tokens(services(request), native)
    return wire.json_response({"input_tokens": tokens}, content_type=wire.PLAIN_JSON)


async def _lenient(parts: Services, native: ChatRequest) -> ChatRequest:
    """The request without a wish to think that the model cannot fulfil: clients of this dialect always wish it."""
    if not native.think or "thinking" in (await call.find(parts, native)).capabilities():
        return native
    return dataclasses.replace(native, think=None)


ROUTES = [
    web.post("/v1/messages", messages),
    web.post("/v1/messages/count_tokens", count_tokens),
]
