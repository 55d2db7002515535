"""POST /api/embed and the older /api/embeddings."""

from __future__ import annotations

import array
import time
from typing import Any

from aiohttp import web

from ollama_compat import call, lookup, options, wire
from ollama_compat.errors import ApiError, BadRequest, ModelNotFound
from ollama_compat.gojson import Number
from ollama_compat.resident import LARGEST_CONTEXT, Wanted
from ollama_compat.schema import EmbeddingRequest, EmbedRequest
from ollama_compat.services import Services, services
from ollama_compat.store import StoredModel

_SMALLEST = 4  # tokens of a context
_TOO_LONG = "the input length exceeds the context length"  # two texts of runners
_NO_ROOM = "input after truncation exceeds maximum context length"


async def embed(request: web.Request) -> web.Response:
    """A unit vector for each input."""
    body = await wire.read(request, EmbedRequest)
    return wire.json_response(await vectors(services(request), body))


async def vectors(parts: Services, body: EmbedRequest) -> dict[str, Any]:
    """The answer of /api/embed."""
    started_ns = time.perf_counter_ns()
    _require_name(body.model)
    inputs = _inputs(body.input)
    stored, wanted = await _find(parts, body)
    async with parts.residency.use(wanted, body.keep_alive) as resident:
        loaded_ns = time.perf_counter_ns()
        if not inputs:
            return {"model": body.model, "embeddings": []}
        num_ctx, truncate = _limits(body, stored, wanted)
        try:
            found = await resident.runner.embed(inputs, truncate=truncate, num_ctx=num_ctx, dimensions=body.dimensions)
        except BadRequest as error:
            if body.truncate and error.message == _TOO_LONG:
                raise BadRequest("input exceeds maximum context length and cannot be truncated further") from None
            raise
    parts.metrics.read(stored.name.short(), found.prompt_tokens)
    return {
        "model": body.model,
        "embeddings": found.embeddings,
        "total_duration": time.perf_counter_ns() - started_ns,
        "load_duration": loaded_ns - started_ns,
        "prompt_eval_count": found.prompt_tokens,
    }


async def embeddings(request: web.Request) -> web.Response:
    """One vector for one prompt."""
    body = await wire.read(request, EmbeddingRequest)
    parts = services(request)
    stored, wanted = await _find(parts, body)
    async with parts.residency.use(wanted, body.keep_alive) as resident:
        if not body.prompt:
            return wire.json_response({"embedding": []})
        try:
            # here the length of a text is the engine's matter, which refuses every one that comes to a model that makes text
            num_ctx, truncate = _limits(body, stored, wanted)[0] if wanted.embedding else LARGEST_CONTEXT, not wanted.embedding
            normalize = not _is_raw(stored)
            found = await resident.runner.embed([body.prompt], truncate=truncate, normalize=normalize, num_ctx=num_ctx)
        except ApiError as error:
            raise ApiError(500, _TOO_LONG if error.message == _NO_ROOM else error.message) from None
    parts.metrics.read(stored.name.short(), found.prompt_tokens)
    exact = array.array("f", found.embeddings[0]).tolist()  # here Ollama prints float32 values with the digits of float64
    return wire.json_response({"embedding": exact})


def _require_name(model: str) -> None:
    try:
        lookup.parse(model)
    except lookup.NoName:
        raise ModelNotFound(model) from None


async def _find(parts: Services, body: EmbedRequest | EmbeddingRequest) -> tuple[StoredModel, Wanted]:
    """The model, and what has to be in memory. What only stands for a model elsewhere counts as missing, after the options."""
    missing = ModelNotFound(body.model, f'model "{body.model}" not found, try pulling it first')
    try:
        stored = await lookup.find_any(parts, body.model)
    except ModelNotFound:
        raise missing from None
    merged = options.merge(stored.params, body.options)
    if lookup.is_stub(stored):
        raise missing
    return stored, call.wanted(stored, merged)


def _inputs(value: Any) -> list[str]:
    """The texts of an input: one, several, or none."""
    texts = value if isinstance(value, list) else [value] if value not in (None, "") else []
    if not all(isinstance(text, str) and not isinstance(text, Number) for text in texts):
        raise BadRequest("invalid input type")
    return texts


def _limits(body: EmbedRequest | EmbeddingRequest, stored: StoredModel, wanted: Wanted) -> tuple[int, bool]:
    """Tokens that an input may have (0 leaves it to the runner), and whether what is longer is cut.

    Where a client or the model itself asks for none, Ollama takes its smallest context, and does not find what to cut.
    """
    truncate = isinstance(body, EmbedRequest) and body.truncate
    said = any((layer or {}).get("num_ctx") is not None for layer in (stored.params, body.options))
    if not said or wanted.options.num_ctx > 0:
        return min(wanted.options.num_ctx, LARGEST_CONTEXT), truncate
    return (_SMALLEST, False) if wanted.embedding else (LARGEST_CONTEXT, truncate)


def _is_raw(stored: StoredModel) -> bool:
    """Whether the older route gives vectors of this model as they come, for some were always asked for so."""
    header = stored.header
    if header is None:
        return False
    if header.architecture in ("nomic-bert", "nomic-bert-moe"):
        return not header.flag("normalize_embeddings")
    is_bert = header.architecture == "bert"
    refuses = header.has("normalize_embeddings") and not header.flag("normalize_embeddings")
    return is_bert and (header.text("tokenizer.ggml.model") != "bert" or refuses)


ROUTES = [web.post("/api/embed", embed), web.post("/api/embeddings", embeddings)]
