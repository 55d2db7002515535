"""A model in memory: what a request needs, what is there, and how it is asked for."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

from ollama_compat.errors import ApiError
from ollama_compat.options import Options
from ollama_compat.runner import Runner
from ollama_compat.settings import EVERY_LAYER, Settings
from runtime.frames import Load, Loaded, Stats

_EMBEDDING_CONTEXT = 4096  # tokens, where neither the request, the model nor OLLAMA_CONTEXT_LENGTH says
MIN_CONTEXT = 4
LARGEST_CONTEXT = 1 << 24  # far beyond any model; the runner caps to what the model was trained for
_PAGE = 256  # tokens: the contexts of llama-server, and so of Ollama, are multiples of it
_ANSWER_SECONDS = 2.0  # a runner that does not tell its counters within this time is left out
_EMBEDDING_BATCH = 2048  # tokens of one input at most, as in Ollama


LoadKey = tuple[Any, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What a request needs in memory."""

    name: str  # as /api/ps shows it
    digest: str
    details: Mapping[str, Any]
    path: str  # of the model file; what runners are told apart by
    options: Options
    adapters: tuple[str, ...] = ()
    embedding: bool = False

    @property
    def may_use_card(self) -> bool:
        """Models that make vectors, or have adapters, run on the CPU."""
        return self.options.num_gpu != 0 and not self.embedding and not self.adapters

    def load_key(self) -> LoadKey:
        """What loads are told apart by: all that a runner is started with but the context, which grows."""
        asked = self.options
        options = asked.num_gpu, asked.main_gpu, asked.use_mmap, asked.num_thread, asked.num_batch, asked.num_cpu_moe
        return self.path, self.adapters, self.embedding, options


@dataclasses.dataclass(slots=True, eq=False)
class Resident:
    """A loaded model. Residency writes everything here; requests only read, and speak to `runner`."""

    wanted: Wanted  # by whoever had it loaded
    runner: Runner
    loaded: Loaded
    num_ctx_asked: int
    keep_alive: float  # seconds after the last request; 0: unload then
    context_length: int  # of the latest request, which may ask for less than there is
    users: int = 0  # requests that hold it
    leaving: bool = False  # no new request may take it
    timer: asyncio.TimerHandle | None = None  # that ends it
    expires_ns: int = 0  # wall clock
    idle: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    async def stats(self) -> Stats | None:
        """The runner's counters; None where it does not tell them soon."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self.runner.stats()
        except (ApiError, TimeoutError):
            return None

    def serves(self, wanted: Wanted) -> bool:
        """Whether the request can run here. Another context, or anything the client left open, never reloads."""
        if self.leaving or self.runner.dead.is_set() or wanted.adapters != self.wanted.adapters:
            return False
        mine, theirs = self.wanted.options, wanted.options
        if wanted.embedding and theirs.num_batch != mine.num_batch:
            return False  # no input may be longer than the batch
        explicit = (
            (theirs.num_gpu, mine.num_gpu, -1),
            (theirs.main_gpu, mine.main_gpu, None),
            (theirs.use_mmap, mine.use_mmap, None),
            (theirs.num_thread, mine.num_thread, 0),
            (theirs.num_batch, mine.num_batch, 0),
            (theirs.num_cpu_moe, mine.num_cpu_moe, 0),
        )
        return all(asked in (unset, have) for asked, have, unset in explicit)

    def fits(self, wanted: Wanted) -> bool:
        """Whether the context is long enough, or as long as the memory let it be when that much was asked for."""
        return min(wanted.options.num_ctx, self.loaded.n_ctx_train) <= max(self.loaded.num_ctx, self.num_ctx_asked)


def whole(num_ctx: int) -> int:
    """Tokens of context that there are where `num_ctx` are asked for, in a model that was trained for as many."""
    return -(-num_ctx // _PAGE) * _PAGE


def load_request(wanted: Wanted, settings: Settings, free: int = 0) -> Load:
    """The Load frame, every number within the runner's bounds; 0 where nobody has named one. `free`: bytes of memory."""
    options = wanted.options
    num_ctx, batch = options.num_ctx or settings.context_length, 0
    if wanted.embedding:  # a request that wants less says so itself, and the next one may leave it open
        num_ctx = max(num_ctx, settings.context_length or _EMBEDDING_CONTEXT)
        batch = min(_EMBEDDING_BATCH, num_ctx)
    num_ctx = min(max(num_ctx, MIN_CONTEXT), LARGEST_CONTEXT) if num_ctx else 0
    return Load(
        path=wanted.path,
        adapters=list(wanted.adapters),
        num_ctx=num_ctx if wanted.embedding else whole(num_ctx),
        num_parallel=1 if wanted.embedding else min(settings.num_parallel, 1024),
        num_batch=min(max(options.num_batch, 1), 1 << 14) if options.num_batch else batch,
        num_thread=min(max(options.num_thread, 0), 1024),
        num_gpu=min(max(options.num_gpu, -1), 1 << 16),
        main_gpu=options.main_gpu,
        num_cpu_moe=min(max(options.num_cpu_moe or settings.num_cpu_moe, 0), EVERY_LAYER),
        gpu_overhead=settings.gpu_overhead,
        vram=settings.vram,
        pinned=settings.pinned,
        pcie=settings.pcie,
        use_mmap=options.use_mmap,
        memory=free,
        kv_cache_type=settings.kv_cache_type,
        embedding=wanted.embedding,
    )
