"""Writing files so that they are either there in full or not at all, whenever the power goes."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

_NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)  # what file systems say that cannot sync a folder


def make(path: Path) -> None:
    """The folder and those above it, durably."""
    if path.is_dir():
        return
    make(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o755)
    sync(path.parent)


def sync(path: Path) -> None:
    """Writes the folder's entries to the disk, where the system can do that."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders; others may not let us read this one
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(descriptor)
