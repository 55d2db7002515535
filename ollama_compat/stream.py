"""Replies that come in parts: NDJSON lines, server-sent events, or the parts put together."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.client_exceptions import ClientConnectionResetError

from ollama_compat import errors, gojson, wire

_LOG = logging.getLogger(__name__)

HOLD_SECONDS = 20.0  # an error within this time still has its own status; then the headers go out, for clients wait for them
WRITE_SECONDS = 120.0  # a client that reads nothing for so long is cut off

Part = dict[str, Any]
Parts = AsyncIterator[Part]
READY: Part = {}
"""A part that is not sent: what went before it was preparation, whose errors Ollama answers in another content type."""


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """How a stream is written: `encode` makes the bytes of a part, `failed` the last part of a stream that an error ends."""

    headers: Mapping[str, str]
    encode: Callable[[Part], bytes]
    failed: Callable[[errors.ApiError], Part]


_SSE = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
NDJSON = Form({"Content-Type": "application/x-ndjson"}, lambda part: gojson.dumps(part) + b"\n", errors.ApiError.body)


DONE: Part = {"done": True}
"""The part that ends a stream of OpenAI's."""


def data_events(failed: Callable[[errors.ApiError], Part]) -> Form:
    """Server-sent events without names."""
    return Form(_SSE, lambda part: b"data: %s\n\n" % (b"[DONE]" if part is DONE else gojson.dumps(part)), failed)


def named_events(failed: Callable[[errors.ApiError], Part]) -> Form:
    """Server-sent events, each named by its `type`."""
    return Form(_SSE, lambda part: b"event: %s\ndata: %s\n\n" % (part["type"].encode(), gojson.dumps(part)), failed)


class PartsResponse:
    """A stream of parts. Each is one write, so that no character is ever split over two."""

    def __init__(self, request: web.Request, form: Form) -> None:
        self._request = request
        self._form = form
        self._response = web.StreamResponse(headers=form.headers)

    @property
    def started(self) -> bool:
        """Whether the headers are out."""
        return self._response.prepared

    async def start(self) -> None:
        """Sends the headers, unless they are out."""
        if not self.started:
            await self._response.prepare(self._request)

    async def write(self, part: Part) -> None:
        """Sends one part."""
        await self.start()
        async with asyncio.timeout(WRITE_SECONDS):
            await self._response.write(self._form.encode(part))

    async def fail(self, error: errors.ApiError) -> None:
        """Sends the part that tells of an error."""
        await self.write(self._form.failed(error))

    def refuse(self, error: errors.ApiError, content_type: str) -> web.Response:
        """The answer instead of a stream that has not begun."""
        return wire.error_response(error, content_type, self._request.get(wire.ENVELOPE))

    async def end(self) -> web.StreamResponse:
        """Ends the stream."""
        await self.start()
        await self._response.write_eof()
        return self._response

    def abort(self) -> web.StreamResponse:
        """Cuts the connection, for a client that takes nothing any more."""
        if self._request.transport is not None:
            self._request.transport.abort()
        return self._response


async def stream(request: web.Request, parts: Parts, form: Form = NDJSON) -> web.StreamResponse:
    """Sends the parts as they come.

    An error before the first line is a JSON answer with its own status (`parts` that never yield READY count as ready);
    after it, it is the stream's last part. When the client goes away this coroutine is cancelled, which closes `parts`.
    """
    response = PartsResponse(request, form)
    async with contextlib.aclosing(parts):  # type: ignore[type-var]
        try:
            return await _send(response, parts)
        except (ClientConnectionResetError, ConnectionResetError, TimeoutError):
            _LOG.info("client stopped reading %s", request.path)
            return response.abort()


async def _send(response: PartsResponse, parts: Parts) -> web.StreamResponse:
    content_type = wire.JSON
    try:
        part = await _first(response, parts)
        while part is not None:
            if part is READY:
                content_type = wire.PLAIN_JSON
            else:
                await response.write(part)
            part = await (anext(parts, None) if response.started else _first(response, parts))
    except errors.ApiError as error:
        if not response.started:
            return response.refuse(error, content_type)
        await response.fail(error)
    return await response.end()


async def _first(response: PartsResponse, parts: Parts) -> Part | None:
    """The first part; the headers go out when it takes long."""
    task: asyncio.Task[Part | None] = asyncio.create_task(_next(parts))
    try:
        done, _ = await asyncio.wait((task,), timeout=HOLD_SECONDS)
        if not done:
            await response.start()
        return await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _next(parts: Parts) -> Part | None:
    return await anext(parts, None)


async def gather(parts: Parts, join: Callable[[list[Part]], Part], content_type: str = wire.JSON) -> web.Response:
    """All the parts put together by `join`, as one JSON answer of that content type."""
    try:
        return wire.json_response(await whole(parts, join), content_type=content_type)
    except errors.ApiError as error:
        return wire.error_response(error, content_type)


async def whole(parts: Parts, join: Callable[[list[Part]], Part]) -> Part:
    """All the parts put together by `join`."""
    async with contextlib.aclosing(parts):  # type: ignore[type-var]
        return join([part async for part in parts if part is not READY])


async def convert(found: Part | Parts, feed: Callable[[Part], list[Part]]) -> Parts:
    """Parts of another dialect: what `feed` makes of each part of an answer, or of the one object that is the answer."""
    if isinstance(found, dict):
        for part in feed(found):
            yield part
        return
    async with contextlib.aclosing(found):  # type: ignore[type-var]
        async for native in found:
            for part in feed(native) if native is not READY else ():
                yield part


def last(parts: list[Part]) -> Part:
    """The joined form of a progress report: what was said last."""
    return parts[-1] if parts else {}
