"""Which blobs have been hashed: the size, time and inode that a file had when its bytes were those of its name.

Ollama renames a download before it hashes it, so a file with the name of a blob proves nothing by itself. The records lie in
`<models>/.moellama/verified/`; one that is lost or torn only means that its blob is hashed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from ollama_compat.store import folders

_BLOCK = 8 << 20  # bytes


class Verified:
    """The records of one store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def knows(self, path: Path) -> bool:
        """Whether the blob was hashed and is the same file since."""
        try:
            return (self._folder / path.name).read_text() == _stamp(path)
        except OSError:
            return False

    def record(self, path: Path) -> None:
        """The blob is what its name says."""
        with contextlib.suppress(OSError):  # a store that only its owner may write: the blob is hashed each time
            folders.make(self._folder)
            (self._folder / path.name).write_text(_stamp(path))

    def forget(self, path: Path) -> None:
        """The blob is gone."""
        with contextlib.suppress(OSError):
            (self._folder / path.name).unlink(missing_ok=True)

    def touch(self, path: Path) -> None:
        """Marks the blob as used just now: sweeps leave young ones alone until their manifest is written."""
        known = self.knows(path)
        with contextlib.suppress(PermissionError, FileNotFoundError):  # a shared store may belong to somebody else
            os.utime(path)
            if known:
                self.record(path)

    def check(self, path: Path) -> bool:
        """Whether the blob is a regular file and right, by its record or by hashing it now."""
        if not path.is_file():
            return False
        if self.knows(path):
            return True
        right = digest_of(path) == path.name.removeprefix("sha256-").lower()
        if right:
            self.record(path)
        return right


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits; FileNotFoundError."""
    digest, block = hashlib.sha256(), bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file, memoryview(block) as view:
        while count := file.readinto(block):
            digest.update(view[:count])
    return digest.hexdigest()


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}\n"
