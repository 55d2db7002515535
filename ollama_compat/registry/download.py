"""One blob from a registry into the store: ranged parts side by side, hashed as they come, resumed where an earlier try ended."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

import aiohttp

from ollama_compat.registry.client import Patience
from ollama_compat.registry.errors import Mismatch, NotFound, RegistryError, Unauthorized, Unreachable
from ollama_compat.registry.partial import Part, Partial
from ollama_compat.store import folders
from ollama_compat.store.blobs import Blobs
from ollama_compat.store.journal import Busy, Entry

_LOG = logging.getLogger(__name__)

STREAMS = 8
_BLOCK = 1 << 20  # bytes that are written at a time
_HASH_BLOCK, _HASH_STEP = 4 << 20, 64 << 20  # bytes read at a time, and hashed without looking up
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_BUSY_WAIT = 0.25  # seconds between two looks at a download that another process has


class Source(Protocol):
    """Where the bytes of a blob come from."""

    async def size(self) -> int:
        """Of the whole blob, in bytes."""

    async def open(self, start: int, stop: int) -> aiohttp.ClientResponse:
        """An answer with the bytes [start, stop), or with all of them."""


class _Broken(RegistryError):
    """A part came to a bad end and can be tried again."""


class _NoRanges(RegistryError):
    """The server sends the whole blob, whatever it was asked for."""


class Download:
    """The way of one blob into the store. `total` and `completed` are bytes; `total` is None until it is known."""

    def __init__(self, blobs: Blobs, digest: str, source: Source, patience: Patience, threads: Executor) -> None:
        self.digest = digest
        self.total: int | None = None
        self._blobs, self._source, self._patience, self._threads = blobs, source, patience, threads
        self._path = blobs.path(digest)
        self._partial: Partial | None = None
        self._moved = asyncio.Event()  # the hash may go on

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
            self.total = await self._source.size()
            await self._fetch(self.total, entry)
        except OSError as error:
            raise _disk_error(error, self._path) from error
        finally:
            entry.leave()

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
            await settled(self.in_thread(partial.finish))
            self._blobs.verified.record(self._path)
            entry.end()
        finally:
            partial.close()

    async def _bytes(self, partial: Partial) -> str:
        """Fetches what is missing; the digest of it all."""
        for _ in range(self._patience.tries):
            try:
                return await self._parts(partial)
            except _NoRanges:
                partial.restart(whole=True)
        raise RegistryError(f"max retries exceeded: the server of {self.digest[7:19]} sends no ranges")

    async def _parts(self, partial: Partial) -> str:
        waiting = deque(part for part in partial.parts if part.completed < part.size)
        workers = [asyncio.create_task(self._work(partial, waiting)) for _ in range(min(STREAMS, len(waiting)))]
        digest = asyncio.create_task(self._digest(partial))
        try:
            await asyncio.gather(*workers)
            return await digest
        finally:
            for task in (*workers, digest):
                task.cancel()
            await asyncio.gather(*workers, digest, return_exceptions=True)

    async def _digest(self, partial: Partial) -> str:
        """Hashes the file from its beginning, as far as it is there without a gap, until it is there in full."""
        digest, at = hashlib.sha256(), 0
        while at < partial.total:
            self._moved.clear()
            ready = min(partial.prefix, at + _HASH_STEP)
            if ready == at:
                await self._moved.wait()
                continue
            await settled(self.in_thread(_hash, digest, partial, at, ready))
            at = ready
        return f"sha256:{digest.hexdigest()}"

    async def _work(self, partial: Partial, waiting: deque[Part]) -> None:
        while waiting:
            await self._part(partial, waiting.popleft())

    async def _part(self, partial: Partial, part: Part) -> None:
        """One part to its end, however often it breaks off; RegistryError when it does so without any progress."""
        failures = 0
        while part.completed < part.size:
            before = part.completed
            try:
                await self._stream(partial, part)
            except (_NoRanges, NotFound, Unauthorized):
                raise
            except RegistryError as error:
                failures = 1 if part.completed > before else failures + 1
                if failures >= self._patience.tries:
                    raise RegistryError(f"max retries exceeded: {error}") from error
                wait = self._patience.wait(failures)
                _LOG.info("%s part %d failed: %s, trying again in %.1f s", self.digest[7:19], part.number, error, wait)
                await asyncio.sleep(wait)

    async def _stream(self, partial: Partial, part: Part) -> None:
        response = await self._source.open(part.start, part.stop)
        async with response:
            _check_range(response, part, partial)
            sink = _Sink(self, partial, part)
            try:
                await self._pour(response, sink, part)
            finally:
                await sink.close()
            if part.completed < part.size:
                raise _Broken("unexpected EOF")

    async def _pour(self, response: aiohttp.ClientResponse, sink: _Sink, part: Part) -> None:
        missing = part.size - part.completed
        try:
            while missing:
                async with asyncio.timeout(self._patience.stall):
                    chunk = await response.content.readany()
                if not chunk:
                    return
                await sink.put(chunk[:missing])
                missing -= min(missing, len(chunk))
        except TimeoutError:
            raise _Broken("part stalled") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Unreachable("GET", str(response.url), error) from error

    def in_thread(self, work: Callable[..., None], *arguments: object) -> asyncio.Future[None]:
        """Work on the disk, under way beside the event loop."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def moved(self) -> None:
        """More bytes are in the file."""
        self._moved.set()


class _Sink:
    """Writes a part's bytes block by block in a thread, while the next block comes in."""

    def __init__(self, download: Download, partial: Partial, part: Part) -> None:
        self._download, self._partial, self._part = download, partial, part
        self._block = bytearray()
        self._writing: asyncio.Future[None] | None = None

    async def put(self, data: bytes) -> None:
        self._block += data
        if len(self._block) >= _BLOCK:
            await self._flush()

    async def close(self) -> None:
        """Everything is in the file, also after an error."""
        await self._flush()
        await self._settle()

    async def _flush(self) -> None:
        await self._settle()
        if self._block:
            block, self._block = self._block, bytearray()
            self._writing = self._download.in_thread(self._partial.write, self._part, block)

    async def _settle(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await settled(writing)
            self._download.moved()


async def settled(work: asyncio.Future[None]) -> None:
    """The end of work in a thread. A thread cannot be cancelled, and must not outlive the file that it works on."""
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait((work,))
        raise


def _hash(digest: hashlib._Hash, partial: Partial, start: int, stop: int) -> None:
    block = bytearray(min(_HASH_BLOCK, stop - start))
    with memoryview(block) as view:
        while start < stop:
            count = partial.read(view[: stop - start], start)
            if not count:
                raise RegistryError("the unfinished file became shorter")
            digest.update(view[:count])
            start += count


def _check_range(response: aiohttp.ClientResponse, part: Part, partial: Partial) -> None:
    """Whether the answer begins where the part goes on."""
    if response.status == 200:
        if part.start == 0 and part.size == partial.total:
            return
        response.close()
        raise _NoRanges("the server sends no ranges")
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status != 206 or match is None or int(match[1]) != part.start or match[3] not in ("*", str(partial.total)):
        response.close()
        got = response.headers.get("Content-Range", "none")
        raise _Broken(f"asked for bytes {part.start}-{part.stop - 1} and got status {response.status}, range {got}")


def _disk_error(error: OSError, path: object) -> RegistryError:
    return RegistryError(f"write {path}-partial: {(error.strerror or str(error)).lower()}")
