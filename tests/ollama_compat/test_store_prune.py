"""The sweep at start-up takes what is surely garbage, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from store_files import make, upload, write_gguf

from ollama_compat.store import Store
from ollama_compat.store.names import ModelName
from ollama_compat.store.prune import MIN_AGE, prune

OLD = time.time() - MIN_AGE - 60


@pytest.fixture
async def store(tmp_path: Path) -> Store:
    """With one old model, and old and young files of every kind beside it."""
    store = Store(tmp_path / "models")
    await make(store, "m", files={"m.gguf": await upload(store, write_gguf(tmp_path / "m.gguf"))})
    for name in GARBAGE + FOREIGN:
        (store.blobs.folder / name).write_bytes(b"x")
    (store.manifests.folder / ".moellama-abc").write_bytes(b"x")
    for path in (*store.blobs.folder.iterdir(), *store.manifests.folder.glob(".*"), store.manifests.path(ModelName.parse("m"))):
        os.utime(path, (OLD, OLD))
    (store.blobs.folder / YOUNG).write_bytes(b"x")
    return store


GARBAGE = [f"sha256-{'0' * 64}", "sha256-123456789", "sha256-ab_12xyz"]
FOREIGN = [f"sha256-{'1' * 64}-partial", f"sha256-{'1' * 64}-partial-3", "notes.txt", "COPY12345", f"sha256-{'1' * 63}"]
YOUNG = f"sha256-{'2' * 64}"


def names(store: Store) -> set[str]:
    return {path.name for path in store.blobs.folder.iterdir()}


def test_only_old_garbage_goes(store: Store) -> None:
    needed = {digest.replace(":", "-") for digest in store.get(ModelName.parse("m")).manifest.digests}
    assert prune(store) == len(GARBAGE) + 1
    assert names(store) == needed | {*FOREIGN, YOUNG}
    assert store.manifests.temporary() == []
    assert prune(store) == 0


def test_nothing_goes_while_a_manifest_is_damaged(store: Store) -> None:
    before = names(store)
    store.manifests.path(ModelName.parse("m")).write_bytes(b"{")
    assert prune(store) == 0
    assert names(store) == before


def test_nothing_goes_when_told_so(store: Store) -> None:
    before = names(store)
    assert prune(Store(store.root, no_prune=True)) == 0
    assert names(store) == before


def test_an_absent_store_is_left_absent(tmp_path: Path) -> None:
    assert prune(Store(tmp_path / "nowhere")) == 0
    assert not (tmp_path / "nowhere").exists()
