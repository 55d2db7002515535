"""Which models are in memory: one runner per model file, loaded on demand, kept alive, evicted to make room."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ollama_compat import duration, memory
from ollama_compat.errors import ApiError, ServerBusy
from ollama_compat.options import Options
from ollama_compat.runner import OutOfMemory, Runner
from ollama_compat.settings import Settings
from runtime.frames import Load, Loaded, LoadProgress

_LOG = logging.getLogger(__name__)

_EMBEDDING_CONTEXT = 4096  # tokens, where neither the request, the model nor OLLAMA_CONTEXT_LENGTH says
_MIN_CONTEXT = 4
LARGEST_CONTEXT = 1 << 24  # far beyond any model; the runner caps to what the model was trained for
_DEFAULT_MODELS = 3
_EMBEDDING_BATCH = 2048  # tokens of one input at most, as in Ollama


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
    timer: asyncio.TimerHandle | None = None
    expires_ns: int = 0  # wall clock
    idle: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def serves(self, wanted: Wanted) -> bool:
        """Whether the request can run here. Another context, or anything the client left open, never reloads."""
        if self.leaving or self.runner.dead.is_set() or wanted.adapters != self.wanted.adapters:
            return False
        mine, theirs = self.wanted.options, wanted.options
        explicit = (
            (theirs.num_gpu, mine.num_gpu, -1),
            (theirs.main_gpu, mine.main_gpu, None),
            (theirs.use_mmap, mine.use_mmap, None),
            (theirs.num_thread, mine.num_thread, 0),
            (theirs.num_batch, mine.num_batch, 0),
        )
        return all(asked in (unset, have) for asked, have, unset in explicit)

    def fits(self, wanted: Wanted) -> bool:
        """Whether the context is long enough, or as long as the memory let it be when that much was asked for."""
        return min(wanted.options.num_ctx, self.loaded.n_ctx_train) <= max(self.loaded.num_ctx, self.num_ctx_asked)


Spawn = Callable[[], Awaitable[Runner]]


class Residency:
    """The runners of this server. One load at a time; requests for a loaded model do not queue."""

    def __init__(self, settings: Settings, spawn: Spawn = Runner.spawn, free_memory: Callable[[], float] | None = None) -> None:
        self._settings = settings
        self._spawn = spawn
        self._free_memory = free_memory or memory.available
        self._residents: dict[str, Resident] = {}
        self._loading = asyncio.Lock()
        self.queued = 0  # requests that wait for a load
        self._closing: set[asyncio.Task[None]] = set()
        self.loading: LoadProgress | None = None  # of the one load that is in progress

    @contextlib.asynccontextmanager
    async def use(self, wanted: Wanted, keep_alive: float | None = None) -> AsyncIterator[Resident]:
        """The model, in memory for as long as the context lasts. `keep_alive`: seconds; None leaves the present value.

        Raises ServerBusy, or the ApiError of a load that fails.
        """
        resident = await self._acquire(wanted, keep_alive)
        try:
            yield resident
        finally:
            self._release(resident)

    def unload(self, path: str) -> None:
        """Unloads the model of that file, now or when its last request ends."""
        resident = self._residents.get(path)
        if resident is not None:
            resident.keep_alive = 0
            if not resident.users:
                self._drop(resident)

    def list(self) -> list[Resident]:
        """What is loaded, the one that stays longest first."""
        alive = [r for r in self._residents.values() if not r.runner.dead.is_set()]
        return sorted(alive, key=lambda r: r.expires_ns // duration.SECOND, reverse=True)

    async def close(self) -> None:
        """Ends every runner."""
        for resident in list(self._residents.values()):
            self._drop(resident)
        await asyncio.gather(*self._closing)

    # ------------------------------------------------------------ taking and giving back

    async def _acquire(self, wanted: Wanted, keep_alive: float | None) -> Resident:
        resident = self._residents.get(wanted.path)
        if resident is not None and resident.serves(wanted) and await self._take(resident, wanted, keep_alive):
            return resident
        if self.queued > self._settings.max_queue:
            raise ServerBusy
        self.queued += 1
        try:
            async with self._loading:
                return self._hold(await self._resident(wanted), wanted, keep_alive)
        finally:
            self.queued -= 1

    async def _take(self, resident: Resident, wanted: Wanted, keep_alive: float | None) -> bool:
        """Holds the resident if its runner lives: one that has just been killed may not have been missed yet."""
        self._hold(resident, wanted, keep_alive)
        usable = False
        try:
            usable = await self._usable(resident, wanted)
        finally:
            if not usable:
                self._release(resident)
        if usable:
            self._note_context(resident, wanted)
        return usable

    async def _usable(self, resident: Resident, wanted: Wanted) -> bool:
        """Whether the runner lives and its context is long enough, or grows to be."""
        if not await resident.runner.alive():
            return False
        if resident.fits(wanted):
            return True
        grown = await resident.runner.grow(wanted.options.num_ctx, self._bytes_free())
        if grown is None:
            return False
        resident.loaded = dataclasses.replace(resident.loaded, num_ctx=grown.num_ctx, size=grown.size)
        resident.num_ctx_asked = max(resident.num_ctx_asked, wanted.options.num_ctx)
        _LOG.info("%s: the context grows to %d tokens", wanted.name, grown.num_ctx)
        return True

    def _bytes_free(self) -> int:
        """Memory that is free and promised to no cache; 0 where the system does not say."""
        free = self._free_memory()
        return 0 if math.isinf(free) else max(1, int(free) - self._promised())

    def _promised(self) -> int:
        """Bytes that loaded models may still take: caches fill with use."""
        return sum(max(0, r.loaded.size - r.loaded.size_vram - r.runner.memory()) for r in self._residents.values())

    def _hold(self, resident: Resident, wanted: Wanted, keep_alive: float | None) -> Resident:
        resident.users += 1
        resident.idle.clear()
        if resident.timer is not None:
            resident.timer.cancel()
            resident.timer = None
        if keep_alive is not None:
            resident.keep_alive = keep_alive
        self._note_context(resident, wanted)
        self._set_expiry(resident)
        return resident

    @staticmethod
    def _note_context(resident: Resident, wanted: Wanted) -> None:
        asked = wanted.options.num_ctx
        resident.context_length = min(max(asked, _MIN_CONTEXT), resident.loaded.num_ctx) if asked else resident.loaded.num_ctx

    def _release(self, resident: Resident) -> None:
        resident.users -= 1
        if resident.users:
            return
        resident.idle.set()
        self._set_expiry(resident)
        if resident.leaving:
            return  # whoever evicts it waits for `idle`
        if resident.keep_alive <= 0:
            self._drop(resident)
        elif not math.isinf(resident.keep_alive):
            resident.timer = asyncio.get_running_loop().call_later(resident.keep_alive, self._expire, resident)

    @staticmethod
    def _set_expiry(resident: Resident) -> None:
        endless = math.isinf(resident.keep_alive)
        resident.expires_ns = time.time_ns() + (duration.FOREVER if endless else int(resident.keep_alive * duration.SECOND))

    def _expire(self, resident: Resident) -> None:
        if not resident.users:
            self._drop(resident)

    # ------------------------------------------------------------ loading

    async def _resident(self, wanted: Wanted) -> Resident:
        """The model, loaded; whatever is in its way unloaded. Under the lock."""
        _file_size(wanted)
        while True:
            resident = self._residents.get(wanted.path)
            if resident is not None and resident.serves(wanted) and await self._usable(resident, wanted):
                return resident
            if resident is not None:
                await self._evict(resident)
            elif self._residents and not self._has_room(wanted):
                await self._evict(self._victim())
            else:
                return await self._load_with_retry(wanted)

    def _has_room(self, wanted: Wanted) -> bool:
        limit = self._settings.max_loaded_models or _DEFAULT_MODELS
        return len(self._residents) < limit and _file_size(wanted) <= 0.8 * (self._free_memory() - self._promised())

    def _victim(self) -> Resident:
        """The idle runner that was to stay for the shortest time, else the busy one."""
        return min(self._residents.values(), key=lambda r: (r.users > 0, r.keep_alive, r.wanted.name))

    async def _evict(self, resident: Resident) -> None:
        """Unloads it, after the requests that it has; its memory is free then."""
        resident.leaving = True
        try:
            while resident.users and not resident.runner.dead.is_set():
                await resident.idle.wait()
        except asyncio.CancelledError:
            resident.leaving = False  # whoever wanted the room is gone
            if not resident.users:
                self._drop(resident)
            raise
        self._drop(resident)
        await asyncio.gather(*self._closing)

    async def _load_with_retry(self, wanted: Wanted) -> Resident:
        """Where memory runs out, once more with every other model gone."""
        try:
            return await self._load(wanted)
        except OutOfMemory:
            if not self._residents:
                raise
        for other in list(self._residents.values()):
            await self._evict(other)
        return await self._load(wanted)

    async def _load(self, wanted: Wanted) -> Resident:
        request = load_request(wanted, self._settings, self._bytes_free())
        runner = await self._spawn()
        try:
            _LOG.info("loading %s, context %s", wanted.name, request.num_ctx or "by memory")
            loaded = await runner.load(request, stall_timeout=self._settings.load_timeout, progress=self._note_progress)
        except BaseException:
            runner.kill()
            self._close_later(runner)
            raise
        finally:
            self.loading = None
        seconds = loaded.load_ns / duration.SECOND
        _LOG.info("loaded %s in %.2f s, context %d: %s", wanted.name, seconds, loaded.num_ctx, loaded.placement)
        resident = Resident(wanted, runner, loaded, request.num_ctx, self._settings.keep_alive, loaded.num_ctx)
        self._residents[wanted.path] = resident
        return resident

    def _note_progress(self, progress: LoadProgress) -> None:
        if self.loading is None or self.loading.phase != progress.phase or progress.completed == progress.total:
            _LOG.info("%s: %d of %d", progress.phase, progress.completed, progress.total)
        self.loading = progress

    def _drop(self, resident: Resident) -> None:
        """Takes it off the list and ends its runner, in the background."""
        if self._residents.get(resident.wanted.path) is resident:
            del self._residents[resident.wanted.path]
            self._close_later(resident.runner)
        if resident.timer is not None:
            resident.timer.cancel()

    def _close_later(self, runner: Runner) -> None:
        task = asyncio.create_task(runner.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _file_size(wanted: Wanted) -> int:
    """Bytes of the model file; the ApiError of a model that vanished when it is not there."""
    try:
        return Path(wanted.path).stat().st_size
    except OSError as error:
        raise ApiError(404, f'model "{wanted.name}" not found, try pulling it first') from error


def load_request(wanted: Wanted, settings: Settings, free: int = 0) -> Load:
    """The Load frame, every number within the runner's bounds; 0 where nobody has named one. `free`: bytes of memory."""
    options = wanted.options
    num_ctx, batch = options.num_ctx or settings.context_length, 0
    if wanted.embedding:  # a request that wants less says so itself, and the next one may leave it open
        num_ctx = max(num_ctx, settings.context_length or _EMBEDDING_CONTEXT)
        batch = min(_EMBEDDING_BATCH, num_ctx)
    return Load(
        path=wanted.path,
        adapters=list(wanted.adapters),
        num_ctx=min(max(num_ctx, _MIN_CONTEXT), LARGEST_CONTEXT) if num_ctx else 0,
        num_parallel=1 if wanted.embedding else min(settings.num_parallel, 1024),
        num_batch=min(max(options.num_batch, 1), 1 << 14) if options.num_batch else batch,
        num_thread=min(max(options.num_thread, 0), 1024),
        num_gpu=min(max(options.num_gpu, -1), 1 << 16),
        main_gpu=options.main_gpu,
        use_mmap=options.use_mmap,
        memory=free,
        kv_cache_type=settings.kv_cache_type,
        embedding=wanted.embedding,
    )
