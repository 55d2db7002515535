"""Blobs: files named by the SHA-256 of what is in them. A file with such a name is complete and right, or it is not there.

A blob is written under another name, hashed on the way, synced, and then renamed. The other name begins like Ollama's own
temporary files do, so that Ollama sweeps up what a crash has left; this program sweeps up what its journal names.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType

from ollama_compat.duration import quote
from ollama_compat.errors import BadRequest
from ollama_compat.store import folders
from ollama_compat.store.journal import Journal
from ollama_compat.store.verified import Verified

DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")

_BLOCK = 4 << 20  # bytes that are hashed and written at a time


class DigestMismatch(BadRequest):
    """The bytes are not those that the digest promised."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"digest mismatch, expected {quote(expected)}, got {quote(got)}")


class Writer:
    """A blob that is being written. Used as a context manager it leaves nothing behind unless `commit` was called."""

    def __init__(self, blobs: Blobs) -> None:
        folders.make(blobs.folder)
        self._blobs = blobs
        name = f"sha256-{secrets.token_hex(8)}"
        self._entry = blobs.journal.begin(name)
        self._path = blobs.folder / name
        try:
            self._file = self._path.open("xb", buffering=0)
        except OSError:
            self._entry.end()
            raise
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()  # a cancelled upload ends while a thread still writes its last block
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Appends `data`."""
        with self._lock, memoryview(data) as view:
            self._hash.update(view)
            self.size += len(view)
            written = 0
            while written < len(view):
                written += self._file.write(view[written:]) or 0

    @property
    def path(self) -> Path:
        """Where another process may write, instead of `write`; `scan` then has to read it."""
        return self._path

    def scan(self) -> Iterator[int]:
        """Takes what another process has written; tells how many bytes it has read so far."""
        with self._path.open("rb") as file:
            while block := file.read(_BLOCK):
                with self._lock:
                    self._hash.update(block)
                    self.size += len(block)
                yield self.size

    def seal(self) -> str:
        """Everything is written: syncs it and gives its digest, `sha256:...`."""
        with self._lock:
            if os.name == "posix":
                os.fchmod(self._file.fileno(), 0o644)
            os.fsync(self._file.fileno())
            self._file.close()
        return f"sha256:{self._hash.hexdigest()}"

    def commit(self) -> bool:
        """Gives the sealed file its name; False when that blob was there already. A file that nobody has hashed is replaced."""
        target = self._blobs.folder / f"sha256-{self._hash.hexdigest()}"
        existed = target.is_file() and target.stat().st_size == self.size
        if existed and self._blobs.verified.knows(target):
            self.abort()
            self._blobs.verified.touch(target)
            return False
        os.replace(self._path, target)
        folders.sync(self._blobs.folder)
        self._blobs.verified.record(target)
        self._entry.end()
        return not existed

    def abort(self) -> None:
        """Removes what was written, unless it has its name by now."""
        with self._lock:
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._entry.end()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.abort()


class Blobs:
    """The folder `blobs` of a store; beside it lies `.moellama`, with what this program remembers about it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own = folder.parent / ".moellama"
        self.journal = Journal(self.own / "unfinished")
        self.verified = Verified(self.own / "verified")

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be; BadRequest for what is no digest. No other text ever becomes part of a path."""
        match = DIGEST.fullmatch(digest)
        if match is None:
            raise BadRequest("invalid digest format")
        return self.folder / f"sha256-{match[1]}"

    def has(self, digest: str) -> bool:
        """Whether the blob is there and right. Without a record of that it is hashed now, which takes a while for a large one."""
        return self.verified.check(self.path(digest))

    def read(self, digest: str) -> bytes:
        """The bytes of a small blob."""
        return self.path(digest).read_bytes()

    def remove(self, digest: str) -> None:
        """Removes the blob, if it is there."""
        self.path(digest).unlink(missing_ok=True)
        self.verified.forget(self.path(digest))

    def writer(self) -> Writer:
        """A new blob."""
        return Writer(self)

    async def receive(self, digest: str, chunks: AsyncIterable[bytes]) -> bool:
        """Stores an upload; False when the blob is there already and nothing was read.

        Raises DigestMismatch when it is not what was announced. Uploads of the same blob may run side by side.
        """
        if await asyncio.to_thread(self.has, digest):
            return False
        writer = await asyncio.to_thread(self.writer)
        try:
            async for block in _blocks(chunks):
                await asyncio.to_thread(writer.write, block)
            got = await asyncio.to_thread(writer.seal)
            if got != digest:
                raise DigestMismatch(digest, got)
            await asyncio.to_thread(writer.commit)
        finally:
            writer.abort()
        return True


async def _blocks(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes | bytearray]:
    """The same bytes in pieces worth a thread's while."""
    block = bytearray()
    async for chunk in chunks:
        block += chunk
        if len(block) >= _BLOCK:
            yield block
            block = bytearray()
    if block:
        yield block
