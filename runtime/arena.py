"""The memory that a model's tensors lie in: one mapping that they are read into, or the file itself as the system caches it."""

from __future__ import annotations

import concurrent.futures
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from runtime.core import ModelError
from runtime.gguf_file import GGUFFile, TensorInfo

ALIGN = 64  # bytes; a tensor starts on a cache line
CHUNK = 8 << 20  # bytes of one read
READERS = 4  # reads in flight; one thread does not fill an NVMe drive

Progress = Callable[[str, int, int], None]


class Memory(Protocol):
    """Where a model's tensors are."""

    writable: bool  # kernels may lay tensors out anew, and memory that is not needed can be given back
    nbytes: int

    def address(self, info: TensorInfo) -> int:
        """Of a tensor's first byte."""

    def forget(self, address: int, nbytes: int) -> int:
        """Give a part back that will not be read again; how many bytes of memory that frees."""

    def close(self) -> None:
        """Give all of it back; no kernel may run on it any more. Once more does nothing."""


class Arena:
    """One anonymous mapping."""

    writable = True

    def __init__(self, file: GGUFFile, infos: Sequence[TensorInfo], progress: Progress) -> None:
        self._offsets = _layout(infos)
        self.nbytes = sum(aligned(info.nbytes) for info in infos)
        self._pages = _anonymous(max(self.nbytes, ALIGN))
        self._bytes = np.frombuffer(self._pages, np.uint8)
        self._read(file, infos, progress)

    @property
    def start(self) -> int:
        """Its address."""
        return self._bytes.ctypes.data

    def address(self, info: TensorInfo) -> int:
        return self.start + self._offsets[info.name]

    def _read(self, file: GGUFFile, infos: Sequence[TensorInfo], progress: Progress) -> None:
        done = 0
        descriptors = [os.open(part, os.O_RDONLY) for part in file.parts]
        try:
            with concurrent.futures.ThreadPoolExecutor(READERS) as readers:
                jobs = [
                    readers.submit(_read_into, descriptors[info.part], info.offset + at, self._slice(info, at))
                    for info in infos
                    for at in range(0, info.nbytes, CHUNK)
                ]
                for job in concurrent.futures.as_completed(jobs):
                    done += job.result()
                    progress("reading weights", done, self.nbytes)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _slice(self, info: TensorInfo, at: int) -> memoryview:
        start = self._offsets[info.name]
        return memoryview(self._pages)[start + at : start + min(at + CHUNK, info.nbytes)]

    def forget(self, address: int, nbytes: int) -> int:
        start = address - self.start
        if not 0 <= start < len(self._bytes):  # an adapter has moved it
            return 0
        first, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if end <= first or not hasattr(mmap, "MADV_DONTNEED"):
            return 0
        self._pages.madvise(mmap.MADV_DONTNEED, first, end - first)
        return end - first

    def close(self) -> None:
        if not self._pages.closed:
            del self._bytes
            self._pages.close()


class FilePages:
    """The file's own pages: the system reads them when they are used, and drops them when it needs memory."""

    writable = False

    def __init__(self, file: GGUFFile, infos: Sequence[TensorInfo]) -> None:
        self.nbytes = sum(info.nbytes for info in infos)
        self._pages: list[mmap.mmap] = []
        for path in file.parts:
            with path.open("rb") as part:
                self._pages.append(mmap.mmap(part.fileno(), 0, access=mmap.ACCESS_READ))
        self._bytes = [np.frombuffer(pages, np.uint8) for pages in self._pages]

    def address(self, info: TensorInfo) -> int:
        return self._bytes[info.part].ctypes.data + info.offset

    def forget(self, address: int, nbytes: int) -> int:
        return 0

    def close(self) -> None:
        self._bytes.clear()
        for pages in self._pages:
            pages.close()


def aligned(n: int) -> int:
    """n, rounded up to whole ALIGN."""
    return (n + ALIGN - 1) // ALIGN * ALIGN


def _layout(infos: Sequence[TensorInfo]) -> dict[str, int]:
    offsets, end = {}, 0
    for info in infos:
        offsets[info.name] = end
        end += aligned(info.nbytes)
    return offsets


def _anonymous(nbytes: int) -> mmap.mmap:
    """Zeroed memory of this process alone: shared memory, mmap's default, gets no huge pages on most systems."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, nbytes)
    arena = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _ask_for_huge_pages(arena)
    return arena


def _ask_for_huge_pages(arena: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            arena.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without them: ordinary pages do as well
            return


def _read_into(descriptor: int, offset: int, target: memoryview) -> int:
    """Fill `target` from the file; ModelError when the file became shorter."""
    done = 0
    while done < len(target):
        count = os.preadv(descriptor, [target[done:]], offset + done)
        if count == 0:
            raise ModelError("the model file ended while it was read")
        done += count
    return done
