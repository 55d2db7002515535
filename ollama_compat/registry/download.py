"""One blob from a registry into the store: ranged parts side by side, hashed as they come, resumed where an earlier try ended."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from ollama_compat.registry.carry import NoRanges, Stale, carry
from ollama_compat.registry.client import Patience
from ollama_compat.registry.errors import Mismatch, NotFound, RegistryError, Unauthorized
from ollama_compat.registry.partial import Part, Partial
from ollama_compat.registry.pipe import Pipe, Pipes
from ollama_compat.registry.source import Target
from ollama_compat.store import folders
from ollama_compat.store.blobs import Blobs
from ollama_compat.store.journal import Busy, Entry

_LOG = logging.getLogger(__name__)

FIRST_STREAMS, STREAMS = 1, 8
_GROW = 0.1  # seconds between two looks at the speed
_FAST = 250e6  # bytes a second from which on more streams only cost
_RUN = 1 << 30  # bytes that a fast connection is asked for at once: a registry takes its time to begin a part
_HASH_STEP = 64 << 20  # bytes that are hashed without looking up
_BUSY_WAIT = 0.25  # seconds between two looks at a download that another process has


class Source(Protocol):
    """Where the bytes of a blob come from."""

    async def locate(self) -> Target:
        """An address that gives them, and the size of the whole."""

    def stale(self, target: Target) -> None:
        """That address gives them no more."""


class Download:
    """The way of one blob into the store. `total` and `completed` are bytes; `total` is None until it is known."""

    def __init__(self, blobs: Blobs, digest: str, source: Source, patience: Patience, pipes: Pipes) -> None:
        self.digest = digest
        self.total: int | None = None
        self._blobs, self._source, self._patience, self._pipes = blobs, source, patience, pipes
        self._threads = ThreadPoolExecutor(STREAMS + 1, "download")  # they write, and one of them hashes
        self._path = blobs.path(digest)
        self._partial: Partial | None = None
        self._moved = asyncio.Event()  # the hash may go on
        self._busy = 0  # connections

    @property
    def completed(self) -> int:
        """Bytes that are here."""
        return self._partial.completed if self._partial else 0

    async def run(self) -> None:
        """Afterwards the blob is in the store, synced and verified. Raises RegistryError; cancelled, it keeps what it has."""
        folders.make(self._path.parent)
        entry = await self._entry()
        try:
            if await asyncio.to_thread(self._blobs.verified.check, self._path):  # another process was faster
                self.total = self._path.stat().st_size
                entry.end()
                return
            self.total = await self._size()
            await self._fetch(self.total, entry)
        except OSError as error:
            raise _disk_error(error, self._path) from error
        finally:
            entry.leave()
            self._threads.shutdown(wait=False)  # nothing runs in them any more

    async def _size(self) -> int:
        """Of the blob; a registry that fails is asked again for a while."""
        for failures in range(1, self._patience.tries):
            try:
                return (await self._source.locate()).size
            except (NotFound, Unauthorized):
                raise
            except RegistryError as error:
                _LOG.info("%s: %s, trying again", self.digest[7:19], error)
                await asyncio.sleep(self._patience.wait(failures))
        return (await self._source.locate()).size

    async def _entry(self) -> Entry:
        """The journal's entry; waits while another process downloads the same blob."""
        while True:
            try:
                return self._blobs.journal.begin(f"{self._path.name}-partial")
            except Busy:
                await asyncio.sleep(_BUSY_WAIT)

    async def _fetch(self, total: int, entry: Entry) -> None:
        partial = self._partial = Partial(self._path, self._blobs.journal.folder.parent, total)
        try:
            got = await self._bytes(partial)
            if got != self.digest and partial.resumed:  # an earlier try, or the power, left wrong bytes
                _LOG.warning("%s does not match after resuming; fetching it again", self.digest[7:19])
                partial.restart()
                got = await self._bytes(partial)
            if got != self.digest:
                partial.discard()
                entry.end()
                raise Mismatch(self.digest, got)
            await settled(self._in_thread(partial.finish))
            self._blobs.verified.record(self._path)
            entry.end()
        finally:
            partial.close()

    async def _bytes(self, partial: Partial) -> str:
        """Fetches what is missing; the digest of it all."""
        for _ in range(self._patience.tries):
            try:
                return await self._parts(partial)
            except NoRanges:
                partial.restart(whole=True)
        raise RegistryError(f"max retries exceeded: the server of {self.digest[7:19]} sends no ranges")

    async def _parts(self, partial: Partial) -> str:
        waiting = deque(part for part in partial.parts if part.completed < part.size)
        tasks = [asyncio.create_task(self._digest(partial)), asyncio.create_task(self._streams(partial, waiting))]
        try:
            digest, _ = await asyncio.gather(*tasks)
            assert digest is not None
            return digest
        finally:
            await _end(tasks)

    async def _streams(self, partial: Partial, waiting: deque[Part]) -> None:
        """Fetches the parts: over few connections where those are fast, over more of them as long as they are not."""
        workers: set[asyncio.Task[None]] = set()
        before = partial.completed
        try:
            while waiting or workers:
                wanted = FIRST_STREAMS if not workers else len(workers) + (partial.completed - before < _FAST * _GROW)
                while waiting and len(workers) < min(wanted, STREAMS):
                    workers.add(asyncio.create_task(self._work(partial, waiting)))
                    await asyncio.sleep(0)  # it takes its part from those that wait
                before = partial.completed
                done, workers = await asyncio.wait(workers, timeout=_GROW, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
        finally:
            await _end(workers)

    async def _digest(self, partial: Partial) -> str:
        """Hashes the file from its beginning, as far as it is there without a gap, until it is there in full."""
        digest, at = hashlib.sha256(), 0
        while at < partial.total:
            self._moved.clear()
            ready = min(partial.prefix, at + _HASH_STEP)
            if ready == at:
                await self._moved.wait()
                continue
            await settled(self._in_thread(partial.hash_into, digest, at, ready))
            at = ready
        return f"sha256:{digest.hexdigest()}"

    async def _work(self, partial: Partial, waiting: deque[Part]) -> None:
        """Parts one after the other, over one connection; several at once where it is alone and fast."""
        pipe = Pipe(self._pipes)
        self._busy += 1
        try:
            limit = 0
            while waiting:
                run, started = _run(waiting, limit), time.monotonic()
                missing = sum(part.size - part.completed for part in run)
                await self._fetch_run(partial, run, pipe)
                is_fast = missing >= _FAST * (time.monotonic() - started)
                limit = _RUN if is_fast and self._busy == 1 else 0
        finally:
            self._busy -= 1
            pipe.close()

    async def _fetch_run(self, partial: Partial, run: Sequence[Part], pipe: Pipe) -> None:
        """Parts to their end, however often they break off; RegistryError when they do so without any progress."""
        failures = 0
        while missing := [part for part in run if part.completed < part.size]:
            before = sum(part.completed for part in run)
            try:
                await self._stream(partial, missing, pipe)
            except (NoRanges, NotFound, Unauthorized):
                raise
            except RegistryError as error:
                failures = 1 if sum(part.completed for part in run) > before else failures + 1
                if failures >= self._patience.tries:
                    raise RegistryError(f"max retries exceeded: {error}") from error
                wait = self._patience.wait(failures)
                _LOG.info("%s part %d failed: %s, trying again in %.1f s", self.digest[7:19], missing[0].number, error, wait)
                await asyncio.sleep(wait)

    async def _stream(self, partial: Partial, parts: Sequence[Part], pipe: Pipe) -> None:
        target = await self._source.locate()
        moved = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, self._moved.set)
        try:
            await settled(self._in_thread(carry, pipe, target, partial, parts, moved), pipe.cut)
        except Stale:
            self._source.stale(target)
            raise

    def _in_thread(self, work: Callable[..., None], *arguments: object) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _run(waiting: deque[Part], limit: int) -> list[Part]:
    """Takes the first part that waits, and those that follow it without a gap as long as they have no more than `limit` bytes."""
    run = [waiting.popleft()]
    while waiting and waiting[0].start == run[-1].stop and waiting[0].stop - run[0].start <= limit:
        run.append(waiting.popleft())
    return run


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels what still runs, and waits for it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def settled(work: asyncio.Future[None], cut: Callable[[], None] | None = None) -> None:
    """The end of work in a thread. A thread cannot be cancelled, and must not outlive its files; `cut` makes it end soon."""
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        if cut is not None:
            cut()
        await asyncio.wait((work,))
        raise


def _disk_error(error: OSError, path: object) -> RegistryError:
    return RegistryError(f"write {path}-partial: {(error.strerror or str(error)).lower()}")
