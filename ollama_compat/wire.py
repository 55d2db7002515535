"""Bodies in and out: requests read within limits, replies written as Ollama's server writes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import hdrs, web

from ollama_compat import decoding, errors, gojson
from ollama_compat.compression import inflate
from ollama_compat.errors import ApiError, BadRequest, CloudDisabled, Refused

_LOG = logging.getLogger(__name__)

MAX_JSON = 128 << 20  # bytes of a JSON body; pictures travel in it as base64
BODY_IDLE_SECONDS = 30.0  # a body that does not move for so long is given up
_BIG = 256 << 10  # bytes; larger bodies are decoded beside the event loop

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"  # what Ollama says where a stream or a progress report turned into one answer

_Request = TypeVar("_Request")

Envelope = Callable[[int, str], dict[str, Any]]
ENVELOPE: web.RequestKey[Envelope] = web.RequestKey("envelope")
"""How an error's status and text are written where it is not `{"error": text}`; a route sets it before anything can fail."""


async def read_body(request: web.Request, limit: int = MAX_JSON) -> bytes:
    """The whole body; ApiError 413 beyond `limit`, 408 when it stalls."""
    if (request.content_length or 0) > limit:
        raise ApiError(413, "request body too large")
    body = bytearray()
    iterator = request.content.iter_any()
    while True:
        try:
            async with asyncio.timeout(BODY_IDLE_SECONDS):
                chunk = await anext(iterator, b"")
        except TimeoutError:
            raise ApiError(408, "request body timed out") from None
        if not chunk:
            return bytes(body)
        body += chunk
        if len(body) > limit:
            raise ApiError(413, "request body too large")


async def read(request: web.Request, kind: type[_Request], package: str = "api") -> _Request:
    """The request that the body holds; its Content-Type does not matter. BadRequest with Ollama's words."""
    return await _decoded(await read_body(request), kind, package)


async def _decoded(body: bytes, kind: type[_Request], package: str) -> _Request:
    if len(body) > _BIG:
        return await asyncio.to_thread(decoding.decode, body, kind, package)
    return decoding.decode(body, kind, package)


async def read_enveloped(request: web.Request, kind: type[_Request], package: str, envelope: Envelope) -> _Request:
    """As `read`, for a dialect of the API that has its own form of errors: from here on they are written by `envelope`.

    Bodies may be compressed with zstd; one that cannot be inflated is told in the native form, as by Ollama.
    """
    zipped = request.headers.get(hdrs.CONTENT_ENCODING) == "zstd"
    if not zipped:
        request[ENVELOPE] = envelope
    body = await read_body(request)
    if zipped:
        body = await asyncio.to_thread(inflate, body)
        request[ENVELOPE] = envelope
    try:
        return await _decoded(body, kind, package)
    except BadRequest as error:
        raise Refused(error.message) from None


def json_response(value: Any, status: int = 200, content_type: str = JSON) -> web.Response:
    """A JSON answer."""
    return web.Response(body=gojson.dumps(value), status=status, headers={"Content-Type": content_type})


def empty_response(status: int = 200) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status, headers={"Content-Length": "0"})


def text_response(text: str, status: int) -> web.Response:
    """A plain text answer in the form of Ollama's router."""
    return web.Response(body=text.encode(), status=status, headers={"Content-Type": "text/plain"})


def error_response(error: BaseException, content_type: str = JSON, envelope: Envelope | None = None) -> web.Response:
    """The JSON answer for an error. What is not an ApiError is our fault and goes to the log with its traceback."""
    status, body = errors.answer(error)
    if envelope is not None and not isinstance(error, CloudDisabled):
        body = envelope(status, body["error"])
        content_type = JSON if isinstance(error, Refused) else PLAIN_JSON
    if not isinstance(error, ApiError):
        _LOG.error("request failed", exc_info=error)
    return json_response(body, status, content_type)
