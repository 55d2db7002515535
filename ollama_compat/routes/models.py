"""Routes about the models of the store: list, show, copy, delete, blobs, create, pull, push."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from ollama_compat import duration, explain, lookup, stream, wire
from ollama_compat.errors import ApiError, BadRequest, CloudDisabled, InternalError, InvalidModelName, ModelNotFound
from ollama_compat.openai.common import envelope
from ollama_compat.schema import CopyRequest, CreateRequest, DeleteRequest, PullRequest, PushRequest, ShowRequest
from ollama_compat.services import Services, services
from ollama_compat.store import StoredModel
from ollama_compat.store import create as creation
from ollama_compat.store.default_model import ensure
from ollama_compat.store.names import ModelName, spelled_out
from ollama_compat.store.show import show as show_model

_CHUNK = 1 << 20  # bytes


async def tags(request: web.Request) -> web.Response:
    """All models, the latest first."""
    stored = await asyncio.to_thread(services(request).store.list)
    entries = await asyncio.to_thread(lambda: [model.list_entry(duration.local(model.modified_ns)) for model in stored])
    return wire.json_response({"models": entries})


async def openai_models(request: web.Request) -> web.Response:
    """All models as OpenAI's API lists them."""
    stored = await asyncio.to_thread(services(request).store.list)
    return wire.json_response(
        {"object": "list", "data": [_openai_model(model.name.short(), model) for model in stored] or None},
        content_type=wire.PLAIN_JSON,
    )


async def openai_model(request: web.Request) -> web.Response:
    """One model as OpenAI's API shows it."""
    name = request.match_info["model"]
    try:
        stored = await lookup.find_any(services(request), name, lookup.CLOUD_DETAILS)
        if lookup.is_stub(stored):
            raise ApiError(403, lookup.CLOUD_DETAILS)
    except CloudDisabled:
        raise
    except ApiError as error:
        message = f"model '{ModelName.parse(name).short()}' not found" if isinstance(error, ModelNotFound) else error.message
        return wire.json_response(envelope(error.status, message), error.status, wire.PLAIN_JSON)
    return wire.json_response(_openai_model(name, stored), content_type=wire.PLAIN_JSON)


def _openai_model(identifier: str, stored: StoredModel) -> dict[str, Any]:
    created = stored.modified_ns // duration.SECOND
    return {"id": identifier, "object": "model", "created": created, "owned_by": stored.name.namespace}


async def show(request: web.Request) -> web.Response:
    """Everything about one model; with `verbose`, on a machine with a card, where a load would put it too."""
    body = await wire.read(request, ShowRequest)
    agent, parts = request.headers.get("User-Agent", ""), services(request)
    answer = await asyncio.to_thread(show_model, parts.store, body, agent)
    if body.verbose and (words := await explain.placement(parts, await lookup.find(parts, body.model or body.name))):
        answer["placement"] = words
    return wire.json_response(answer)


async def copy(request: web.Request) -> web.Response:
    """Gives a model a second name."""
    body = await wire.read(request, CopyRequest)
    source = _name(body.source, "source")
    destination = _name(body.destination, "destination")
    store = services(request).store
    found = await asyncio.to_thread(lookup.resolve, store, source)
    if found is None:
        raise ModelNotFound(body.source, f"model {duration.quote(body.source)} not found")
    await asyncio.to_thread(store.copy, found, destination)
    return wire.empty_response()


def _name(text: str, what: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except InvalidModelName:
        raise BadRequest(f"{what} {duration.quote(text)} is invalid") from None


async def delete(request: web.Request) -> web.Response:
    """Removes a model, and the files that no other one needs."""
    body = await wire.read(request, DeleteRequest)
    text = body.model or body.name
    try:
        name = lookup.parse(text).stored_name
    except InvalidModelName:
        raise BadRequest(f"name {duration.quote(text)} is invalid") from None
    try:
        await asyncio.to_thread(services(request).store.delete, name)
    except ModelNotFound:
        raise ModelNotFound(text) from None
    return wire.empty_response()


async def head_blob(request: web.Request) -> web.Response:
    """Whether a blob is there."""
    digest = request.match_info["digest"]
    if not await asyncio.to_thread(services(request).store.has_blob, digest):
        raise ApiError(404, f"blob {duration.quote(digest)} not found")
    return wire.empty_response()


async def post_blob(request: web.Request) -> web.Response:
    """Stores the body under its digest; one that is there is answered without reading, and the body then drained."""
    written = await services(request).store.write_blob(request.match_info["digest"], _chunks(request))
    return wire.empty_response(201 if written else 200)


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    iterator = request.content.iter_chunked(_CHUNK)
    while True:
        try:
            async with asyncio.timeout(wire.BODY_IDLE_SECONDS):
                chunk = await anext(iterator, b"")
        except TimeoutError:
            raise ApiError(408, "request body timed out") from None
        if not chunk:
            return
        yield chunk


async def create(request: web.Request) -> web.StreamResponse:
    """Makes a model from files or from another model."""
    body = await wire.read(request, CreateRequest)
    creation.check(body)
    return await _progress(request, _create(request, body), body.stream)


async def _create(request: web.Request, body: CreateRequest) -> stream.Parts:
    yield stream.READY
    async with contextlib.aclosing(creation.create(services(request).store, body, services(request).registry.pull)) as parts:
        async for part in parts:
            yield part


async def pull(request: web.Request) -> web.StreamResponse:
    """Fetches a model. The one that ships with the server comes from there."""
    body = await wire.read(request, PullRequest)
    text = body.model or body.name
    try:
        name = lookup.parse(text).stored_name
    except lookup.NoName:
        raise InvalidModelName from None
    return await _progress(request, _pull(services(request), name, body.insecure), body.stream)


async def _pull(parts: Services, name: ModelName, insecure: bool) -> stream.Parts:
    yield stream.READY
    if await asyncio.to_thread(ensure, parts.store, name):
        yield {"status": "pulling manifest"}
        yield {"status": "success"}
        return
    name = await asyncio.to_thread(parts.store.canonical, name)
    async with contextlib.aclosing(parts.registry.pull(name, insecure=insecure)) as steps:
        async for step in steps:
            yield step


async def push(request: web.Request) -> web.StreamResponse:
    """Publishes a model."""
    body = await wire.read(request, PushRequest)
    text = body.model or body.name
    if not text:
        raise lookup.NoName
    return await _progress(request, _push(services(request), text, body.insecure), body.stream)


async def _push(parts: Services, text: str, insecure: bool) -> stream.Parts:
    yield stream.READY
    try:
        name = ModelName.parse(text)
    except InvalidModelName:
        yield {"status": "retrieving manifest"}
        yield {"status": "couldn't retrieve manifest"}
        raise InternalError(f"unqualified name: {spelled_out(text)}") from None
    resolved = await asyncio.to_thread(lookup.resolve, parts.store, name)
    name = resolved or name
    async with contextlib.aclosing(parts.registry.push(name, insecure=insecure)) as steps:
        async for step in steps:
            yield step


async def _progress(request: web.Request, parts: stream.Parts, streamed: bool) -> web.StreamResponse:
    if streamed:
        return await stream.stream(request, parts)
    return await stream.gather(parts, stream.last, wire.PLAIN_JSON)


ROUTES = [
    web.head("/api/tags", tags),
    web.get("/api/tags", tags, allow_head=False),
    web.get("/v1/models", openai_models, allow_head=False),
    web.get("/v1/models/{model}", openai_model, allow_head=False),
    web.post("/api/show", show),
    web.post("/api/copy", copy),
    web.delete("/api/delete", delete),
    web.head("/api/blobs/{digest}", head_blob),
    web.post("/api/blobs/{digest}", post_blob),
    web.post("/api/create", create),
    web.post("/api/pull", pull),
    web.post("/api/push", push),
]
