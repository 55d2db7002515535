"""How fast a file is read that is in no cache."""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHUNK = 8 << 20  # bytes of one read
READERS = 4  # as many as a load has
MOST = 1 << 30  # bytes read
SECONDS = 2.0
OWN = 128 << 20  # bytes of a file that is written where there is none to read


def folder_speed(folder: str | Path) -> float | None:
    """Bytes a second from the disk of a folder, or of its nearest parent that there is, by a file of our own."""
    place = next((path for path in (Path(folder), *Path(folder).parents) if path.is_dir()), None)
    if place is None or os.statvfs(place).f_bavail * os.statvfs(place).f_frsize < 4 * OWN:
        return None
    chunk = os.urandom(CHUNK)
    try:
        with tempfile.TemporaryFile(dir=place) as file:  # without a name, so that none stays however this process ends
            for _ in range(OWN // CHUNK):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            return read_speed(f"/proc/self/fd/{file.fileno()}")
    except OSError:  # nobody may write there
        return None


def read_speed(path: str | Path) -> float | None:
    """Bytes a second, past the page cache (O_DIRECT); None for a file that is too small, or where that cannot be had."""
    size = min(os.path.getsize(path), MOST) // CHUNK * CHUNK
    descriptor = _open(path)
    if descriptor is None or size < 2 * CHUNK:
        return None
    try:
        with ThreadPoolExecutor(READERS) as readers:
            return _timed(readers, descriptor, size)
    except OSError:  # a file system that opens so and does not read so
        return None
    finally:
        os.close(descriptor)


def _open(path: str | Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT) if hasattr(os, "O_DIRECT") else None
    except OSError:
        return None


def _timed(readers: ThreadPoolExecutor, descriptor: int, size: int) -> float:
    buffers = [mmap.mmap(-1, CHUNK) for _ in range(READERS)]
    done, begin = 0, time.perf_counter()
    for start in range(0, size, READERS * CHUNK):
        places = range(start, min(start + READERS * CHUNK, size), CHUNK)
        done += sum(readers.map(lambda at, buffer: os.preadv(descriptor, [buffer], at), places, buffers))
        if time.perf_counter() - begin > SECONDS:
            break
    return done / (time.perf_counter() - begin)
