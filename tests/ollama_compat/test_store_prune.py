"""The sweep at start-up takes what is surely garbage, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_files import make, upload, write_gguf

from ollama_compat.settings import Address
from ollama_compat.store import Store
from ollama_compat.store.company import Presence, ollama_runs
from ollama_compat.store.names import ModelName
from ollama_compat.store.prune import MIN_AGE, PARTIAL_AGE, prune

OLD = time.time() - MIN_AGE - 60
UNUSED = f"sha256-{'0' * 64}"
YOUNG = f"sha256-{'2' * 64}"
FOREIGN = [f"sha256-{'1' * 64}-partial", f"sha256-{'1' * 64}-partial-3", "notes.txt", "sha256-123456789", f"sha256-{'1' * 63}"]
OWN = "sha256-0011223344556677"
DOWNLOAD = f"sha256-{'3' * 64}-partial"


@pytest.fixture
async def store(tmp_path: Path) -> Store:
    """With one old model, and old and young files of every kind beside it; those of OWN and DOWNLOAD are journalled."""
    store = Store(tmp_path / "models")
    await make(store, "m", files={"m.gguf": await upload(store, write_gguf(tmp_path / "m.gguf"))})
    for name in (UNUSED, *FOREIGN, OWN, DOWNLOAD, f"{DOWNLOAD}-0"):
        (store.blobs.folder / name).write_bytes(b"x")
    for name in (OWN, DOWNLOAD):
        store.blobs.journal.begin(name).leave()
    (store.manifests.folder / ".moellama-abc").write_bytes(b"x")
    for path in (*store.blobs.folder.iterdir(), *store.manifests.folder.glob(".*"), store.manifests.path(ModelName.parse("m"))):
        os.utime(path, (OLD, OLD))
    (store.blobs.folder / YOUNG).write_bytes(b"x")
    return store


def alone() -> bool:
    return True


def names(store: Store) -> set[str]:
    return {path.name for path in store.blobs.folder.iterdir()}


def needed(store: Store) -> set[str]:
    return {digest.replace(":", "-") for digest in store.get(ModelName.parse("m")).manifest.digests}


def test_only_own_and_old_garbage_goes(store: Store) -> None:
    assert prune(store, alone) == 3  # the unused blob, the unfinished one, the manifest
    assert names(store) == needed(store) | {*FOREIGN, YOUNG, DOWNLOAD, f"{DOWNLOAD}-0"}
    assert store.manifests.temporary() == []
    assert prune(store, alone) == 0


def test_an_own_download_stays_for_a_week(store: Store) -> None:
    prune(store, alone, time.time() + PARTIAL_AGE)
    assert names(store) == needed(store) | {*FOREIGN}
    assert store.blobs.journal.names() == []


def test_blobs_stay_while_another_server_may_need_them(store: Store) -> None:
    before = names(store)
    assert prune(store, lambda: False) == 2
    assert names(store) == before - {OWN}


def test_what_is_being_written_stays(store: Store) -> None:
    with store.blobs.writer() as writer:
        writer.write(b"y")
        before = names(store)
        prune(store, alone, time.time() + 2 * PARTIAL_AGE)
        assert before - names(store) == {UNUSED, YOUNG, OWN, DOWNLOAD, f"{DOWNLOAD}-0"}
    assert store.blobs.journal.names() == []


def test_what_a_killed_process_was_writing_goes(store: Store) -> None:
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from ollama_compat.store import Store
        writer = Store(Path(sys.argv[1])).blobs.writer()
        writer.write(b"x")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", code, str(store.root)], check=False)
    assert len(store.blobs.journal.names()) == 3
    prune(store, alone)
    assert store.blobs.journal.names() == [DOWNLOAD]
    assert names(store) == needed(store) | {*FOREIGN, YOUNG, DOWNLOAD, f"{DOWNLOAD}-0"}


def test_blobs_stay_while_a_manifest_is_damaged(store: Store) -> None:
    before = names(store)
    store.manifests.path(ModelName.parse("m")).write_bytes(b"{")
    prune(store, alone)
    assert names(store) == before - {OWN}


def test_nothing_goes_when_told_so(store: Store) -> None:
    before = names(store)
    assert prune(Store(store.root, no_prune=True), alone) == 0
    assert names(store) == before


def test_an_absent_store_is_left_absent(tmp_path: Path) -> None:
    assert prune(Store(tmp_path / "nowhere"), alone) == 0
    assert not (tmp_path / "nowhere").exists()


def test_two_servers_see_each_other(tmp_path: Path) -> None:
    first = Presence(tmp_path / "own")
    assert first.is_alone()
    second = Presence(tmp_path / "own")
    assert not first.is_alone()
    assert not second.is_alone()
    first.leave()
    assert second.is_alone()
    second.leave()


@pytest.mark.parametrize(
    ("words", "runs"),
    [(b"/usr/bin/ollama\0serve\0", True), (b"ollama\0start\0", True), (b"ollama\0run\0x\0", False), (b"vim\0serve\0", False)],
)
def test_an_ollama_is_seen_by_its_process(tmp_path: Path, words: bytes, runs: bool) -> None:
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "cmdline").write_bytes(words)
    assert ollama_runs(Address(), tmp_path) is runs


HALF = {  # what Ollama 0.33 had left when it was killed in the middle of a pull; the file of the blob itself was sparse
    "sha256-b507b9c2f6ca642bffcd06665ea7c91f235fd32daeefdf875a0f938db05fb315": "{{ .Prompt }}",
    "sha256-e280085deba69a73e02e8e609d0681cf9c1e54c75499ef047210c09ffcc40005-partial": "",
    "sha256-e280085deba69a73e02e8e609d0681cf9c1e54c75499ef047210c09ffcc40005-partial-0": (
        '{"N":0,"Offset":0,"Size":100000000,"Completed":0}\n'
    ),
    "sha256-e280085deba69a73e02e8e609d0681cf9c1e54c75499ef047210c09ffcc40005-partial-1": (
        '{"N":1,"Offset":100000000,"Size":100000000,"Completed":0}\n'
    ),
    "sha256-e280085deba69a73e02e8e609d0681cf9c1e54c75499ef047210c09ffcc40005-partial-2": (
        '{"N":2,"Offset":200000000,"Size":50000000,"Completed":0}\n'
    ),
    "sha256-1869201043": "half of a layer of `ollama create`",
}


def test_a_store_that_an_ollama_filled_half(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.blobs.folder.mkdir(parents=True)
    for name, text in HALF.items():
        path = store.blobs.folder / name
        path.write_text(text)
        if name.endswith("-partial"):
            os.truncate(path, 250_000_000)
    assert prune(store, alone) == 0  # the complete blob may wait for its manifest
    for path in store.blobs.folder.iterdir():
        os.utime(path, (0, 0))
    assert prune(store, lambda: False) == 0
    assert names(store) == HALF.keys()
    assert prune(store, alone) == 1  # that blob, which nothing has needed for long
    assert HALF.keys() - names(store) == {"sha256-b507b9c2f6ca642bffcd06665ea7c91f235fd32daeefdf875a0f938db05fb315"}
