"""POST /api/tokenize and /api/detokenize, which Ollama has not: a model's own way from text to tokens and back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ollama_compat import call, lookup, options, wire
from ollama_compat.errors import BadRequest
from ollama_compat.resident import Wanted
from ollama_compat.schema import DetokenizeRequest, TokenizeRequest
from ollama_compat.services import Services, services


async def tokenize(request: web.Request) -> web.Response:
    """The tokens of a text."""
    body = await wire.read(request, TokenizeRequest)
    started_ns = time.perf_counter_ns()
    parts = services(request)
    wanted = await _wanted(parts, body)
    text = next((given for given in (body.content, body.text, body.prompt) if given is not None), None)
    if text is None:
        raise BadRequest("content is required")
    async with parts.residency.use(wanted, body.keep_alive) as resident:
        loaded_ns = time.perf_counter_ns()
        tokens = await resident.runner.tokenize(text, parse_special=body.parse_special, add_special=body.add_special)
    return _answer(body.model, {"tokens": tokens}, started_ns, loaded_ns)


async def detokenize(request: web.Request) -> web.Response:
    """The text of tokens."""
    body = await wire.read(request, DetokenizeRequest)
    started_ns = time.perf_counter_ns()
    parts = services(request)
    wanted = await _wanted(parts, body)
    if body.tokens is None:
        raise BadRequest("tokens is required")
    async with parts.residency.use(wanted, body.keep_alive) as resident:
        loaded_ns = time.perf_counter_ns()
        text = await resident.runner.detokenize(body.tokens)
    return _answer(body.model, {"content": text}, started_ns, loaded_ns)


async def _wanted(parts: Services, body: TokenizeRequest | DetokenizeRequest) -> Wanted:
    stored = await lookup.find(parts, body.model)
    return call.wanted(stored, options.merge(stored.params, body.options))


def _answer(model: str, found: Mapping[str, Any], started_ns: int, loaded_ns: int) -> web.Response:
    durations = {"total_duration": time.perf_counter_ns() - started_ns, "load_duration": loaded_ns - started_ns}
    return wire.json_response({"model": model, **found, **durations})


ROUTES = [web.post("/api/tokenize", tokenize), web.post("/api/detokenize", detokenize)]
