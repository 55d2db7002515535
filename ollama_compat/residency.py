"""Which models are in memory: one runner per model file, loaded on demand, kept alive, evicted to make room."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from ollama_compat import duration, memory
from ollama_compat.errors import ApiError, RunnerDied, ServerBusy
from ollama_compat.failures import OutOfMemory
from ollama_compat.resident import MIN_CONTEXT, LoadKey, Resident, Wanted, load_request, whole
from ollama_compat.runner import Runner
from ollama_compat.settings import Settings
from runtime.frames import LoadProgress

_LOG = logging.getLogger(__name__)

_DEFAULT_MODELS = 3
_ON_CARD, _BESIDE = 1.1, 1 << 30  # what a model wants of a card: so many times its file, and bytes for its cache and steps


@dataclasses.dataclass(slots=True, eq=False)
class SharedLoad:
    """A load that is under way or waits for its turn."""

    waiters: int = 0
    resident: Resident | None = None  # once it is there; each waiter then holds it
    task: asyncio.Task[None] = dataclasses.field(init=False)


Spawn = Callable[[], Awaitable[Runner]]


class Residency:
    """The runners of this server. One load at a time; requests for a loaded model do not queue."""

    def __init__(self, settings: Settings, spawn: Spawn = Runner.spawn, free_memory: Callable[[], float] | None = None) -> None:
        self._settings = settings
        self._spawn = spawn
        self._free_memory = free_memory or memory.available
        self._residents: dict[str, Resident] = {}
        self._loads: dict[LoadKey, SharedLoad] = {}
        self._loading = asyncio.Lock()  # held by the one load that is in progress
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
        """Ends every load and every runner."""
        loads = [shared.task for shared in self._loads.values()]
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
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
            while True:
                resident = await self._join(wanted)
                if await self._keep(resident, wanted, keep_alive, ping=False):
                    return resident
        finally:
            self.queued -= 1

    async def _take(self, resident: Resident, wanted: Wanted, keep_alive: float | None) -> bool:
        """Holds the resident, if it can be used."""
        self._enter(resident)
        return await self._keep(resident, wanted, keep_alive, ping=True)

    async def _keep(self, resident: Resident, wanted: Wanted, keep_alive: float | None, *, ping: bool) -> bool:
        """Whether a resident that is held can be used, else it is released. `ping`: its runner may have been killed unnoticed."""
        usable = False
        try:
            usable = await (self._still_good if ping else self._long_enough)(resident, wanted)
        finally:
            if not usable:
                self._release(resident)
        if usable:
            self._apply(resident, wanted, keep_alive)
        return usable

    async def _long_enough(self, resident: Resident, wanted: Wanted) -> bool:
        """Whether the context is, or grows to be."""
        if resident.fits(wanted):
            return True
        grown = await resident.runner.grow(whole(wanted.options.num_ctx), self._bytes_free())
        if grown is None:
            return False
        resident.loaded = dataclasses.replace(resident.loaded, num_ctx=grown.num_ctx, size=grown.size, size_vram=grown.size_vram)
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

    @staticmethod
    def _enter(resident: Resident, count: int = 1) -> None:
        """So many requests hold it from now on."""
        resident.users += count
        resident.idle.clear()
        if resident.timer is not None:
            resident.timer.cancel()
            resident.timer = None

    def _apply(self, resident: Resident, wanted: Wanted, keep_alive: float | None) -> None:
        """What a request says about the model that it uses."""
        if keep_alive is not None:
            resident.keep_alive = keep_alive
        asked = wanted.options.num_ctx or self._settings.context_length
        resident.context_length = min(max(asked, MIN_CONTEXT), resident.loaded.num_ctx) if asked else resident.loaded.num_ctx
        self._set_expiry(resident)

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

    async def _join(self, wanted: Wanted) -> Resident:
        """The model, loaded and held, by a load that all share who want the same. It ends when the last of them leaves."""
        key = wanted.load_key()
        shared = self._loads.get(key)
        if shared is None:
            shared = self._loads[key] = SharedLoad()
            shared.task = asyncio.create_task(self._run(key, shared, wanted))
        shared.waiters += 1
        try:
            await asyncio.shield(shared.task)
        except asyncio.CancelledError:
            await self._leave(key, shared)
            raise
        assert shared.resident is not None
        return shared.resident

    async def _run(self, key: LoadKey, shared: SharedLoad, wanted: Wanted) -> None:
        try:
            async with self._loading:
                shared.resident = await self._resident(wanted)
                self._enter(shared.resident, shared.waiters)  # before the next load may evict it
        finally:
            if self._loads.get(key) is shared:
                del self._loads[key]

    async def _leave(self, key: LoadKey, shared: SharedLoad) -> None:
        """One of those who wait for a load is gone."""
        if shared.resident is not None:
            self._release(shared.resident)
            return
        shared.waiters -= 1
        if not shared.waiters:
            if self._loads.get(key) is shared:
                del self._loads[key]
            shared.task.cancel()
            await asyncio.gather(shared.task, return_exceptions=True)

    async def _resident(self, wanted: Wanted) -> Resident:
        """The model, loaded; whatever is in its way unloaded. Under the lock."""
        _file_size(wanted)
        while True:
            resident = self._residents.get(wanted.path)
            if resident is not None and resident.serves(wanted) and await self._still_good(resident, wanted):
                return resident
            if resident is not None:
                await self._evict(resident)
            elif self._residents and not self._has_room(wanted):
                await self._evict(self._victim())
            else:
                return await self._load_with_retry(wanted)

    async def _still_good(self, resident: Resident, wanted: Wanted) -> bool:
        """Whether a model that another request has loaded meanwhile will do."""
        return await resident.runner.alive() and await self._long_enough(resident, wanted)

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
        """Where memory runs out, once more with the models on its card gone, and then with every other."""
        while True:
            others = await self._make_room_on_card(wanted) if wanted.may_use_card else []
            try:
                return await self._load(wanted, shared=bool(others))
            except OutOfMemory:
                if not self._residents:
                    raise
            for other in others or list(self._residents.values()):
                await self._evict(other)

    async def _load(self, wanted: Wanted, *, shared: bool) -> Resident:
        request = dataclasses.replace(load_request(wanted, self._settings, self._bytes_free()), shared=shared)
        runner = await self._spawn()
        try:
            _LOG.info("loading %s, context %s", wanted.name, request.num_ctx or "by memory")
            loaded = await runner.load(request, stall_timeout=self._settings.load_timeout, progress=self._note_progress)
        except BaseException:  # a cancelled load too leaves no process
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

    async def _make_room_on_card(self, wanted: Wanted) -> Sequence[Resident]:
        """Has models leave a part of the card that the one that is to come will lie on. Those that are there."""
        others = [r for r in self._residents.values() if r.loaded.size_vram and not r.runner.dead.is_set()]
        nbytes, there = int(_ON_CARD * _file_size(wanted)) + _BESIDE, []
        for resident in others:
            models = 1 + sum(other.loaded.gpu == resident.loaded.gpu for other in others)
            with contextlib.suppress(RunnerDied):
                given = await resident.runner.give_back(nbytes, models, wanted.options.main_gpu)
                resident.loaded = dataclasses.replace(resident.loaded, size_vram=given.size_vram)
                there += [resident] if given.shared else []
        return there

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
