"""A download that is not finished: the file `<blob>-partial` and a record `<blob>-partial-<n>` of each part, as Ollama has them.

A record is `{"N":0,"Offset":0,"Size":100,"Completed":40}`. Either program goes on with what the other has left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ollama_compat.store import folders

MIN_PART, MAX_PART, PARTS = 64 << 20, 256 << 20, 64
_SAVE_EVERY = 8 << 20  # bytes of a part between two writings of its record
_HASH_BLOCK = 256 << 10  # bytes that stay in a core's cache between reading and hashing


@dataclasses.dataclass(slots=True)
class Part:
    """Bytes [offset, offset + size) of the blob, the first `completed` of which are in the file."""

    number: int
    offset: int
    size: int
    completed: int = 0
    saved: int = 0  # what the record says

    @property
    def start(self) -> int:
        """Where the next byte goes."""
        return self.offset + self.completed

    @property
    def stop(self) -> int:
        """Behind the last byte."""
        return self.offset + self.size

    def record(self) -> bytes:
        """As it stands in the file."""
        fields = {"N": self.number, "Offset": self.offset, "Size": self.size, "Completed": self.completed}
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def layout(found: Iterable[Part], total: int) -> list[Part]:
    """Parts that cover [0, total) once: those found, as far as they fit together, and new ones for the gaps between them."""
    parts: list[Part] = []
    at = 0
    for part in sorted(found, key=lambda part: part.offset):
        if part.offset >= at and part.stop <= total:
            parts += [*_new(at, part.offset, total), part]
            at = part.stop
    parts += _new(at, total, total)
    for number, part in enumerate(parts):
        part.number = number
    return parts


def _new(start: int, stop: int, total: int) -> list[Part]:
    size = min(max(total // PARTS, MIN_PART), MAX_PART)
    return [Part(0, offset, min(size, stop - offset)) for offset in range(start, stop, size)]


class Partial:
    """The unfinished file of one blob. Its methods work on the disk; `write` of different parts may run side by side."""

    def __init__(self, blob: Path, scratch: Path, total: int) -> None:
        self._blob, self._scratch, self.total = blob, scratch, total
        self.path = blob.with_name(f"{blob.name}-partial")
        found = self._records() if self._has_size(total) else []
        self.parts = layout(found, total)
        self.resumed = any(part.completed for part in self.parts)
        self.descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o644)
        os.ftruncate(self.descriptor, total)
        self._save_all()

    def _has_size(self, total: int) -> bool:
        return self.path.is_file() and self.path.stat().st_size == total

    def _record_paths(self) -> list[Path]:
        return [path for path in self._blob.parent.glob(f"{self.path.name}-*") if path.name.rpartition("-")[2].isdigit()]

    def _records(self) -> list[Part]:
        return [part for path in self._record_paths() if (part := _read(path)) is not None]

    def _save_all(self) -> None:
        numbers = {part.number for part in self.parts}
        for path in self._record_paths():
            if int(path.name.rpartition("-")[2]) not in numbers:
                path.unlink(missing_ok=True)
        for part in self.parts:
            self.save(part)

    @property
    def completed(self) -> int:
        """Bytes that are in the file."""
        return sum(part.completed for part in self.parts)

    @property
    def prefix(self) -> int:
        """Bytes that are in the file without a gap from its beginning."""
        at = 0
        for part in self.parts:
            at = part.start
            if part.completed < part.size:
                break
        return at

    def restart(self, *, whole: bool = False) -> None:
        """Forgets what is in the file; `whole`: it comes as one part from now on."""
        self.parts = [Part(0, 0, self.total)] if whole and self.total else layout((), self.total)
        self.resumed = False
        self._save_all()

    def write(self, part: Part, data: memoryview) -> None:
        """The next bytes of the part."""
        written = 0
        while written < len(data):
            written += os.pwrite(self.descriptor, data[written:], part.start + written)
        part.completed += len(data)
        if part.completed - part.saved >= _SAVE_EVERY or part.completed == part.size:
            self.save(part)

    def save(self, part: Part) -> None:
        """Writes the part's record, in one step: an Ollama that finds half a record does not go on at all."""
        part.saved = part.completed
        temporary = self._scratch / f"{self.path.name}-{part.number}"
        temporary.write_bytes(part.record())
        os.replace(temporary, self.path.with_name(f"{self.path.name}-{part.number}"))

    def hash_into(self, digest: hashlib._Hash, start: int, stop: int) -> None:
        """Hashes the bytes [start, stop) of the file. Copying them into one small block costs less than mapping them."""
        with memoryview(bytearray(_HASH_BLOCK)) as block:
            while start < stop:
                count = os.preadv(self.descriptor, [block[: stop - start]], start)
                if not count:
                    return  # somebody made the file shorter; the digest will be another one
                digest.update(block[:count])
                start += count

    def finish(self) -> None:
        """The bytes are right: syncs them and gives the file the blob's name."""
        os.fsync(self.descriptor)
        os.replace(self.path, self._blob)
        folders.sync(self._blob.parent)
        self._remove_records()

    def discard(self) -> None:
        """Removes the file and its records."""
        self._remove_records()
        self.path.unlink(missing_ok=True)

    def _remove_records(self) -> None:
        for path in self._record_paths():
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Saves what is known; for a file that is kept."""
        if self.path.exists():
            for part in self.parts:
                if part.completed != part.saved:
                    with contextlib.suppress(OSError):  # a full disk: the record says less than there is
                        self.save(part)
        os.close(self.descriptor)


def _read(path: Path) -> Part | None:
    """The part of a record; None for one that makes no sense, whose bytes are fetched again then."""
    try:
        fields: Any = json.loads(path.read_bytes())
        offset, size, completed = (fields[key] for key in ("Offset", "Size", "Completed"))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    numbers = (offset, size, completed)
    if not all(isinstance(number, int) and 0 <= number < 1 << 63 for number in numbers) or completed > size or not size:
        return None
    return Part(0, offset, size, completed, completed)
