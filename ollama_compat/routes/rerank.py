"""POST /api/rerank and /v1/rerank, which Ollama has not: documents in the order in which they answer a query.

Requests and answers are llama-server's, which are Jina's and nearly Cohere's: frontends know them.
"""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from ollama_compat import call, duration, lookup, options, wire
from ollama_compat.errors import BadRequest, UnsupportedCapability
from ollama_compat.openai import common
from ollama_compat.schema import RerankRequest
from ollama_compat.services import Services, services
from ollama_compat.store import StoredModel

RANK = 4  # the pooling of models that rank, as GGUF numbers it


async def rerank(request: web.Request) -> web.Response:
    """The documents, best first, with durations as in Ollama's answers."""
    body = await wire.read(request, RerankRequest)
    started_ns = time.perf_counter_ns()
    results, tokens, loaded_ns = await _ranked(services(request), body)
    durations = {"total_duration": time.perf_counter_ns() - started_ns, "load_duration": loaded_ns - started_ns}
    return wire.json_response({"model": body.model, "results": results, **durations, "prompt_eval_count": tokens})


async def compatible(request: web.Request) -> web.Response:
    """The same as llama-server answers."""
    body = await wire.read_enveloped(request, RerankRequest, "api", common.envelope)
    results, tokens, _ = await _ranked(services(request), body)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    reply = {"model": body.model, "object": "list", "usage": usage, "results": results}
    return wire.json_response(reply, content_type=wire.PLAIN_JSON)


async def _ranked(parts: Services, body: RerankRequest) -> tuple[list[dict[str, Any]], int, int]:
    """Results, tokens, and when the model was there."""
    stored = await lookup.find(parts, body.model)
    documents = _documents(body)
    if not _ranks(stored):
        raise UnsupportedCapability(duration.quote(body.model), "reranking: it has no classifier head (pooling type rank)")
    wanted = call.wanted(stored, options.merge(stored.params, body.options))
    async with parts.residency.use(wanted, body.keep_alive) as resident:
        loaded_ns = time.perf_counter_ns()
        found = await resident.runner.embed(documents, truncate=True, query=body.query)
    parts.metrics.read(stored.name.short(), found.prompt_tokens)
    scores = [score for (score,) in found.embeddings]
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    top = order[: body.top_n] if body.top_n > 0 else order
    results = [_result(index, scores[index], documents[index] if body.return_documents else None) for index in top]
    return results, found.prompt_tokens, loaded_ns


def _result(index: int, score: float, document: str | None) -> dict[str, Any]:
    told = {} if document is None else {"document": {"text": document}}
    return {"index": index, "relevance_score": score, **told}


def _documents(body: RerankRequest) -> list[str]:
    """The texts; one may also be an object that holds it."""
    if not body.query:
        raise BadRequest('"query" must be provided')
    given = [entry.get("text") if isinstance(entry, dict) else entry for entry in body.documents or ()]
    texts = [text for text in given if isinstance(text, str)]
    if not texts or len(texts) < len(given):
        raise BadRequest('"documents" must be a non-empty string array')
    return texts


def _ranks(stored: StoredModel) -> bool:
    return stored.header is not None and stored.header.count("pooling_type") == RANK


ROUTES = [
    web.post("/api/rerank", rerank),
    *(web.post(path, compatible) for path in ("/v1/rerank", "/v1/reranking", "/rerank", "/reranking")),
]
