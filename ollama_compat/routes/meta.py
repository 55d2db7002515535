"""Routes about the server itself, and those of Ollama's cloud, which this server has none of."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from ollama_compat import duration, wire
from ollama_compat.errors import ApiError, BadRequest
from ollama_compat.resident import Resident
from ollama_compat.services import services
from ollama_compat.settings import VERSION

_CLOUD_OFF = "ollama cloud is disabled"

_RECOMMENDED = (
    {
        "model": "demo-moe",
        "description": "A very small Mixture-of-Experts model that comes with the server",
        "context_length": 2048,
        "max_output_tokens": 2048,
    },
)


async def root(_: web.Request) -> web.Response:
    """The greeting by which clients know an Ollama server."""
    return web.Response(text="Ollama is running")


async def version(_: web.Request) -> web.Response:
    """The version of Ollama whose API this is."""
    return wire.json_response({"version": VERSION})


async def status(request: web.Request) -> web.Response:
    """Whether Ollama's cloud is turned off, and by whom."""
    return wire.json_response({"cloud": {"disabled": True, "source": services(request).settings.cloud_source}})


async def loading(request: web.Request) -> web.Response:
    """How far the load in progress is; Ollama has no such route. Our command line shows it."""
    progress = services(request).residency.loading
    report = progress and {"phase": progress.phase, "completed": progress.completed, "total": progress.total}
    return wire.json_response({"loading": report})


async def ps(request: web.Request) -> web.Response:
    """What is loaded, the one that stays longest first."""
    loaded = services(request).residency.list()
    return wire.json_response({"models": list(await asyncio.gather(*map(_running, loaded)))})


async def _running(resident: Resident) -> dict[str, Any]:
    loaded, wanted = resident.loaded, resident.wanted
    model: dict[str, Any] = {
        "name": wanted.name,
        "model": wanted.name,
        "size": loaded.size,
        "digest": wanted.digest,
        "details": wanted.details,
        "expires_at": duration.local(resident.expires_ns),
        "size_vram": loaded.size_vram,
        "context_length": resident.context_length,
    }
    if loaded.size_vram:
        model["placement"] = loaded.placement
    if loaded.pinned is not None:
        model["pinned"] = loaded.pinned
    stats = await resident.stats() if loaded.size_vram else None
    if stats and stats.expert_lookups:
        rate = round(stats.expert_hits / stats.expert_lookups, 4)
        model["expert_cache"] = {"lookups": stats.expert_lookups, "hits": stats.expert_hits, "hit_rate": rate}
    return model


async def me(_: web.Request) -> web.Response:
    """The account at ollama.com, which this server never asks for."""
    raise ApiError(503, "account unavailable")


async def signout(_: web.Request) -> web.Response:
    """Nobody is signed in."""
    raise ApiError(401, "you are not currently signed in")


async def web_search(request: web.Request) -> web.Response:
    """A service of ollama.com, refused."""
    await _require_body(request)
    raise ApiError(403, f"{_CLOUD_OFF}: web search is unavailable")


async def web_fetch(request: web.Request) -> web.Response:
    """A service of ollama.com, refused."""
    await _require_body(request)
    raise ApiError(403, f"{_CLOUD_OFF}: web fetch is unavailable")


async def _require_body(request: web.Request) -> None:
    if not (await wire.read_body(request)).strip():
        raise BadRequest("missing request body")


async def recommendations(_: web.Request) -> web.Response:
    """Models to begin with."""
    return wire.json_response({"recommendations": _RECOMMENDED})


ROUTES = [
    web.head("/", root),
    web.get("/", root, allow_head=False),
    web.head("/api/version", version),
    web.get("/api/version", version, allow_head=False),
    web.get("/api/status", status, allow_head=False),
    web.get("/api/ps", ps, allow_head=False),
    web.get("/api/moellama/loading", loading, allow_head=False),
    web.post("/api/me", me),
    web.post("/api/signout", signout),
    web.delete("/api/user/keys/{key}", signout),
    web.post("/api/experimental/web_search", web_search),
    web.post("/api/experimental/web_fetch", web_fetch),
    web.get("/api/experimental/model-recommendations", recommendations, allow_head=False),
]
