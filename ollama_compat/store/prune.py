"""Sweeping the store at start-up: only what is surely garbage, since other programs may share it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ollama_compat.errors import InternalError
from ollama_compat.store import Store
from ollama_compat.store.blobs import DIGEST
from ollama_compat.store.journal import Busy

_LOG = logging.getLogger(__name__)

MIN_AGE = 24 * 3600.0  # seconds since a file last changed; a younger one may wait for its manifest
PARTIAL_AGE = 7 * MIN_AGE  # a download that nobody has gone on with for so long is given up
PARTIAL = "-partial"


def prune(store: Store, is_alone: Callable[[], bool], now: float | None = None) -> int:
    """Removes unfinished files that the journal names and nobody writes, and old blobs that no manifest names; their number.

    Does nothing when OLLAMA_NOPRUNE is set. Blobs stay when any manifest is damaged, and when another server may be at work on
    the store (`is_alone`), which knows what they are for. Other programs' unfinished files always stay.
    """
    if store.no_prune:
        return 0
    now = time.time() if now is None else now
    removed = _unfinished(store, now) + _temporary(store, now - MIN_AGE)
    old = [path for path in _blobs(store) if _changed(path) < now - MIN_AGE]
    if old and _is_sound(store) and is_alone():
        store.collect([path.name for path in old])
        removed += sum(not path.exists() for path in old)
    if removed:
        _LOG.info("removed %d unused files", removed)
    return removed


def _unfinished(store: Store, now: float) -> int:
    """Files of our own that a crash has left, and downloads that nobody goes on with."""
    journal, removed = store.blobs.journal, 0
    for name in journal.names():
        path = store.blobs.folder / name
        try:
            entry = journal.begin(name)
        except Busy:
            continue
        is_download = name.endswith(PARTIAL)
        if is_download and path.exists() and _changed(path) > now - PARTIAL_AGE:
            entry.leave()
            continue
        for part in (path, *(store.blobs.folder.glob(f"{name}-*") if is_download else ())):
            removed += part.exists()
            part.unlink(missing_ok=True)
        entry.end()
    return removed


def _temporary(store: Store, oldest: float) -> int:
    """Manifests that were never put in their place."""
    old = [path for path in store.manifests.temporary() if _changed(path) < oldest]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _blobs(store: Store) -> Iterator[Path]:
    if store.blobs.folder.is_dir():
        yield from (path for path in store.blobs.folder.iterdir() if DIGEST.fullmatch(path.name) and path.is_file())


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
