"""The journal: which unfinished files of the store are this program's own. Only those are ever swept up.

An entry is an empty file, `<models>/.moellama/unfinished/<name>`, locked by the process that writes the file of that name in
`blobs`. A process that dies lets go of its locks; whoever can lock an entry knows that its file has no writer.
"""

from __future__ import annotations

import os
from pathlib import Path

from ollama_compat.store import folders

try:
    import fcntl
except ImportError:  # Windows: entries are not locked there
    fcntl = None  # type: ignore[assignment]


class Busy(Exception):
    """Another process, or another part of this one, is writing that file."""


class Entry:
    """One unfinished file, for as long as somebody works on it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = _locked(path)

    def end(self) -> None:
        """The file is finished, or removed."""
        self._path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Work stops, and the file stays for later. Further calls do nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Journal:
    """The entries of one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, name: str) -> Entry:
        """Call this before the file is created. Raises Busy."""
        folders.make(self.folder)
        return Entry(self.folder / name)

    def names(self) -> list[str]:
        """Of all unfinished files, with or without a writer."""
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []


def _locked(path: Path) -> int:
    """A descriptor of the file, locked. One that was removed between opening and locking is made again."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            _lock(descriptor)
        except Busy:
            os.close(descriptor)
            raise
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy from None
