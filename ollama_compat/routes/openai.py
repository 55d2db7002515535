"""The routes of OpenAI's dialect of the API."""

from __future__ import annotations

import functools

from aiohttp import web

from ollama_compat import several, stream, wire
from ollama_compat.openai import beyond, chat, common, completions, embeddings, response_events, transcriptions
from ollama_compat.openai.responses import ResponsesRequest, to_native
from ollama_compat.routes import chat as native_chat
from ollama_compat.routes import embed as native_embed
from ollama_compat.routes import generate as native_generate
from ollama_compat.services import services
from ollama_compat.turns import Heard


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Answers a conversation."""
    body = await wire.read_enveloped(request, chat.ChatCompletionRequest, "openai", common.envelope)
    natives, heard = beyond.answers(body, chat.to_native(body)), Heard()
    begin = functools.partial(native_chat.begin, services(request))
    found = [await begin(native, None if at else heard) for at, native in enumerate(natives)]
    if natives[0].stream:
        chunks = chat.Chunks(body, heard, len(natives))
        return await stream.stream(request, several.convert(found, chunks.feed), stream.data_events(common.failed))
    replies = await several.wholes(found, native_chat.joiner(natives[0]))
    return wire.json_response(chat.completion(replies, heard), content_type=wire.PLAIN_JSON)


async def completion(request: web.Request) -> web.StreamResponse:
    """Answers a prompt."""
    body = await wire.read_enveloped(request, completions.CompletionRequest, "openai", common.envelope)
    natives, heard = beyond.answers(body, completions.to_native(body)), Heard()
    begin = functools.partial(native_generate.begin, services(request), split=False)
    found = [await begin(native, None if at else heard) for at, native in enumerate(natives)]
    if natives[0].stream:
        events = several.convert(found, completions.Chunks(body, heard, len(natives)).feed)
        return await stream.stream(request, events, stream.data_events(common.failed))
    replies = await several.wholes(found, native_generate.join)
    return wire.json_response(completions.completion(replies, heard), content_type=wire.PLAIN_JSON)


async def responses(request: web.Request) -> web.StreamResponse:
    """Answers a conversation in the form of OpenAI's newer endpoint. Nothing is stored."""
    body = await wire.read_enveloped(request, ResponsesRequest, "openai", common.envelope)
    native, heard = to_native(body), Heard()
    found = await native_chat.begin(services(request), native, heard)
    if native.stream:
        events = response_events.Events(body, heard)
        return await stream.stream(request, stream.convert(found, events.feed), stream.named_events(events.failed))
    reply = found if isinstance(found, dict) else await stream.whole(found, native_chat.joiner(native))
    return wire.json_response(response_events.response(body, reply, heard), content_type=wire.PLAIN_JSON)


async def embedding(request: web.Request) -> web.Response:
    """A vector for each input."""
    body = await wire.read_enveloped(request, embeddings.EmbedRequest, "openai", common.envelope)
    reply = await native_embed.vectors(services(request), embeddings.to_native(body))
    return wire.json_response(embeddings.listing(body, reply), content_type=wire.PLAIN_JSON)


async def transcription(request: web.Request) -> web.Response:
    """The words that a sound file holds, for models that hear."""
    request[wire.ENVELOPE] = common.envelope
    form = await transcriptions.read_form(request)
    native = transcriptions.to_native(form)
    found = await native_chat.begin(services(request), native)
    reply = found if isinstance(found, dict) else await stream.whole(found, native_chat.joiner(native))
    text = reply["message"]["content"].strip()
    if transcriptions.wants_text(form):
        return wire.text_response(text, 200)
    return wire.json_response({"text": text}, content_type=wire.PLAIN_JSON)


ROUTES = [
    web.post("/v1/chat/completions", chat_completions),
    web.post("/v1/completions", completion),
    web.post("/v1/embeddings", embedding),
    web.post("/v1/responses", responses),
    web.post("/v1/audio/transcriptions", transcription),
]
