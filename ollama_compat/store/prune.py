"""Sweeping the store at start-up: only what is surely garbage, since other programs may share it."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

from ollama_compat.errors import InternalError
from ollama_compat.store import Store
from ollama_compat.store.blobs import DIGEST

_LOG = logging.getLogger(__name__)

MIN_AGE = 24 * 3600.0  # seconds since a file last changed; a younger one may wait for its manifest

_TEMPORARY = re.compile(r"sha256-[0-9a-z_]{1,20}")  # names of files in the writing, ours and Ollama's


def prune(store: Store, now: float | None = None) -> int:
    """Removes old blobs that no manifest names and old unfinished files of our own kind; gives their number.

    Does nothing when OLLAMA_NOPRUNE is set or any manifest is damaged. Partial downloads are left to who began them.
    """
    if store.no_prune or not _is_sound(store):
        return 0
    oldest = (time.time() if now is None else now) - MIN_AGE
    old = [path for path in _files(store.blobs.folder) + store.manifests.temporary() if _changed(path) < oldest]
    store.collect([path.name for path in old if DIGEST.fullmatch(path.name)])
    for path in old:
        if path.parent != store.blobs.folder or _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)
    removed = sum(not path.exists() for path in old)
    if removed:
        _LOG.info("removed %d unused files", removed)
    return removed


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _changed(path: Path) -> float:
    """Seconds since the epoch; a file that is gone is young."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _is_sound(store: Store) -> bool:
    try:
        for name in store.names():
            store.manifests.read(name)
    except (OSError, InternalError) as error:
        _LOG.warning("corrupt manifests detected, skipping prune operation; re-pull or delete to clear: %s", error)
        return False
    return True
