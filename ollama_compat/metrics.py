"""Counters and gauges of the server in Prometheus' text format."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ollama_compat.request_log import note
from ollama_compat.residency import Residency
from ollama_compat.resident import Resident
from runtime.frames import Done, Stats

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
_RATES = (1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1280)
_SECOND = 1e9  # nanoseconds


class Metrics:
    """All of them, in a registry of their own. Tokens are counted when an answer has ended."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "moellama_requests", "Answered HTTP requests; status 499: the client left", ["route", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "moellama_request_seconds", "From a request to the end of its answer", ["route"], buckets=_SECONDS, registry=registry
        )
        self.in_progress = Gauge("moellama_requests_in_progress", "HTTP requests being answered", registry=registry)
        self._prompt = Counter("moellama_prompt_tokens", "Tokens of prompts", ["model"], registry=registry)
        self._cached = Counter("moellama_cached_tokens", "Of these, found in the cache", ["model"], registry=registry)
        self._generated = Counter("moellama_generated_tokens", "Tokens of answers", ["model"], registry=registry)
        self._first_token = Histogram(
            "moellama_first_token_seconds", "From a request to its first token", ["model"], buckets=_SECONDS, registry=registry
        )
        self._rate = Histogram(
            "moellama_tokens_per_second", "Speed of answers after their first token", ["model"], buckets=_RATES, registry=registry
        )
        self._queue = Gauge("moellama_queue_length", "Requests that wait for a model to be loaded", registry=registry)
        self._sequences = Gauge(
            "moellama_sequences", "Requests inside of runners, by state", ["model", "state"], registry=registry
        )
        self._blocks = Gauge(
            "moellama_cache_blocks", "Blocks of the key and value cache, by state", ["model", "state"], registry=registry
        )
        self._experts = Gauge(
            "moellama_expert_lookups",
            "Experts asked for by rows since the model was loaded, found in VRAM or not",
            ["model", "result"],
            registry=registry,
        )
        self._bytes = Gauge(
            "moellama_model_bytes", "Memory of loaded models: planned, on the GPU, resident", ["model", "kind"], registry=registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """An HTTP request has been answered."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def generated(self, model: str, done: Done, first_token_ns: int) -> None:
        """A text has been generated. `first_token_ns`: from the request to its first token; 0: there was none."""
        self.read(model, done.prompt_tokens, done.cached_tokens)
        self._generated.labels(model).inc(done.eval_tokens)
        if first_token_ns:
            self._first_token.labels(model).observe(first_token_ns / _SECOND)
        if done.eval_tokens > 1:
            self._rate.labels(model).observe((done.eval_tokens - 1) / done.eval_ns * _SECOND)
        note().eval_tokens = done.eval_tokens

    def read(self, model: str, tokens: int, cached: int = 0) -> None:
        """A prompt, or an input of an embedding model, has been read."""
        self._prompt.labels(model).inc(tokens)
        self._cached.labels(model).inc(cached)
        about = note()
        about.model, about.prompt_tokens = model, tokens

    async def text(self, residency: Residency) -> bytes:
        """Everything, with the present state of the runners."""
        residents = residency.list()
        self._queue.set(residency.queued)
        for gauge in (self._sequences, self._blocks, self._bytes, self._experts):
            gauge.clear()
        for resident, stats in zip(residents, await asyncio.gather(*(resident.stats() for resident in residents)), strict=True):
            self._show(resident, stats)
        return generate_latest(self._registry)

    def _show(self, resident: Resident, stats: Stats | None) -> None:
        name = resident.wanted.name
        for kind, size in (("planned", resident.loaded.size), ("gpu", resident.loaded.size_vram)):
            self._bytes.labels(name, kind).set(size)
        self._bytes.labels(name, "resident").set(resident.runner.memory())
        if stats is None:
            return
        self._sequences.labels(name, "running").set(stats.running)
        self._sequences.labels(name, "waiting").set(stats.waiting)
        held = stats.blocks_total - stats.blocks_free - stats.blocks_cached
        for state, count in (("held", held), ("reusable", stats.blocks_cached), ("blank", stats.blocks_free)):
            self._blocks.labels(name, state).set(count)
        if stats.expert_lookups:
            self._experts.labels(name, "hit").set(stats.expert_hits)
            self._experts.labels(name, "miss").set(stats.expert_lookups - stats.expert_hits)
