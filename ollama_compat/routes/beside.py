"""What Ollama has not: whether the server is well, its counters, and the description of its API."""

from __future__ import annotations

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST

from ollama_compat import openapi, wire
from ollama_compat.services import services


async def health(_: web.Request) -> web.Response:
    """Whether the server answers; it asks no model."""
    return wire.json_response({"status": "ok"})


async def metrics(request: web.Request) -> web.Response:
    """Counters and gauges for Prometheus."""
    parts = services(request)
    text = await parts.metrics.text(parts.residency)
    return web.Response(body=text, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})


async def description(request: web.Request) -> web.Response:
    """The API as an OpenAPI document."""
    return wire.json_response(openapi.document(request.app))


async def page(request: web.Request) -> web.Response:
    """The API as a page for people."""
    text = openapi.page(openapi.document(request.app))
    return web.Response(text=text, content_type="text/html", headers=openapi.PAGE_HEADERS)


ROUTES = [
    web.head("/health", health),
    web.get("/health", health, allow_head=False),
    web.get("/metrics", metrics, allow_head=False),
    web.get("/openapi.json", description, allow_head=False),
    web.get("/docs", page, allow_head=False),
]
