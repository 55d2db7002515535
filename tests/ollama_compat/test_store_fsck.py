"""Every damage is found and named."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import permissions
import pytest
from store_files import make, upload, write_gguf

from ollama_compat.store import Store
from ollama_compat.store.fsck import Check, Finding
from ollama_compat.store.names import ModelName

NAME = ModelName.parse("m")


@pytest.fixture
async def store(tmp_path: Path) -> Store:
    """With the model `m`, which has a model file, a template, parameters and a config."""
    store = Store(tmp_path / "models")
    files = {"m.gguf": await upload(store, write_gguf(tmp_path / "m.gguf"))}
    await make(store, "m", files=files, template="{{ .Prompt }}", parameters={"seed": 1})
    return store


def findings(store: Store, **options: bool) -> list[Finding]:
    return list(Check(store, **options).run())


def blob(store: Store, kind: str) -> Path:
    manifest = store.manifests.read(NAME)
    layers = [*manifest.layers, manifest.config]
    return store.blob_path(next(layer.digest for layer in layers if layer.media_type.endswith(kind)))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(store: Store, change: Callable[[dict[str, object]], object]) -> None:
    path = store.manifests.path(NAME)
    body = json.loads(path.read_bytes())
    change(body)
    path.write_text(json.dumps(body))


def test_a_sound_store(store: Store) -> None:
    check = Check(store)
    assert list(check.run()) == []
    assert (check.report.models, check.report.blobs) == (1, 4)
    assert check.report.size == sum(path.stat().st_size for path in store.blobs.folder.iterdir())


@pytest.mark.parametrize("kind", ["model", "template", "params", "image.v1+json"])
def test_wrong_bytes(store: Store, kind: str) -> None:
    path = blob(store, kind)
    flip(path)
    first, second = findings(store)
    assert first == Finding(path.name, "has other bytes than its name says (of m:latest)")
    assert second.where == "m:latest"
    assert second.what.endswith(f"{path.name[:19].replace('-', ':')} has other bytes than its name says")


def test_wrong_bytes_that_kept_their_time_are_only_found_by_hashing(store: Store) -> None:
    path = blob(store, "model")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    flip(path)
    os.utime(path, ns=times)
    assert findings(store, quick=True) == []
    assert len(findings(store)) == 2
    assert len(findings(store, quick=True)) == 2  # the record is gone


def test_a_blob_that_is_missing_short_or_no_file(store: Store) -> None:
    path = blob(store, "template")
    path.unlink()
    assert [finding.what for finding in findings(store)] == [f"its template sha256:{path.name[7:19]} is missing"]
    path.mkdir()
    assert findings(store)[-1].what.endswith("is not a file")
    path.rmdir()
    path.write_bytes(b"{{")
    assert "has 2 bytes where the manifest says 13" in findings(store)[-1].what


MANIFESTS = {
    b"": "m:latest: the manifest of m:latest is damaged: it is empty",
    b"{": "m:latest: the manifest of m:latest is damaged: unexpected EOF",
    b"[]": "m:latest: the manifest of m:latest is damaged: it is not a list of layers",
    b"\0" * 500: "m:latest: the manifest of m:latest is damaged: invalid character '\\x00' looking for beginning of value",
    b'{"layers":[{"digest":"sha256:00"}]}': "m:latest: the manifest of m:latest is damaged: invalid digest format",
    b'{"layers":[{"size":5}]}': "m:latest: the manifest is damaged: a layer names no blob",
    b"{}": "m:latest: the manifest names no blobs",
}


@pytest.mark.parametrize(("data", "told"), MANIFESTS.items())
def test_damaged_manifests(store: Store, data: bytes, told: str) -> None:
    store.manifests.path(NAME).write_bytes(data)
    damages = [f"{finding.where}: {finding.what}" for finding in findings(store) if finding.is_damage]
    assert damages == [told]


def test_what_a_damaged_manifest_mentions_is_not_unused(store: Store) -> None:
    path = store.manifests.path(NAME)
    path.write_bytes(path.read_bytes()[:-3])
    assert [finding.is_damage for finding in findings(store)] == [True]
    path.unlink()
    path.symlink_to(path)  # nobody knows what it mentions
    assert [finding.is_damage for finding in findings(store)] == [True]


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(store: Store) -> None:
    record = store.blobs.folder / f"sha256-{'6' * 64}-partial-0"
    for path in (store.manifests.path(NAME), record):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    told = {finding.where: finding.what for finding in findings(store) if finding.is_damage}
    assert told == {
        "m:latest": "the manifest is not a file",
        record.name: "a damaged record of an unfinished download, over which Ollama stumbles",
    }


def test_manifests_in_wrong_places(store: Store) -> None:
    folder = store.manifests.folder
    places = ["a/b/c/d/e", "registry.ollama.ai/library/m/a b", "registry.ollama.ai/lost"]
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(b"{}")
    assert [finding.where for finding in findings(store)] == places


def test_names_that_differ_only_in_case(store: Store) -> None:
    data = store.manifests.path(NAME).read_bytes()
    other = store.manifests.folder / "registry.ollama.ai/library/M/latest"
    other.parent.mkdir()
    other.write_bytes(data)
    assert [finding.where for finding in findings(store)] == ["m:latest"]


def place(store: Store, data: bytes) -> str:
    """A blob that was damaged before it was named; its digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    store.blob_path(digest).write_bytes(data)
    return digest


@pytest.mark.parametrize(("index", "what"), [(0, "is no usable GGUF file: "), (2, "is no JSON")])
def test_content_that_was_damaged_before_it_was_named(store: Store, index: int, what: str) -> None:
    data = b"GGUF" + bytes(40)
    digest = place(store, data)
    edit(store, lambda body: body["layers"][index].update(digest=digest, size=len(data)))  # type: ignore[index]
    assert [what in finding.what for finding in findings(store) if finding.is_damage] == [True]


def test_what_only_takes_space(store: Store) -> None:
    unused = place(store, b"unused")
    folder = store.blobs.folder
    own = f"sha256-{'5' * 64}-partial"
    store.blobs.journal.begin(own).leave()
    for name in (own, f"sha256-{'6' * 64}-partial", "sha256-12345", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (folder / f"sha256-{'6' * 64}-partial-0").write_text('{"N":0}')
    (store.manifests.folder / ".moellama-x").write_bytes(b"")
    found = findings(store)
    assert not any(finding.is_damage for finding in found)
    assert {(finding.where, finding.what) for finding in found} == {
        (".moellama-x", "a manifest that was never put in its place"),
        (unused.replace(":", "-"), "belongs to no model (6 bytes)"),
        (own, "an unfinished download of this program"),
        (f"sha256-{'6' * 64}-partial", "an unfinished download"),
        (f"sha256-{'6' * 64}-partial-0", "the record of an unfinished download"),
        ("sha256-12345", "an unfinished file"),
        ("notes.txt", "does not belong here"),
    }


def test_a_damaged_record_of_a_download(store: Store) -> None:
    (store.blobs.folder / f"sha256-{'6' * 64}-partial-0").write_text("")
    assert [finding.is_damage for finding in findings(store)] == [True]


def test_files_that_cannot_be_read(store: Store) -> None:
    blob(store, "model").chmod(0)
    store.manifests.path(NAME).chmod(0)
    with permissions.obeyed():
        assert ["permission denied" in finding.what for finding in findings(store)] == [True, True]


def fsck(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"OLLAMA_MODELS": str(folder)}
    command = [sys.executable, "-m", "ollama_compat", "fsck", *flags]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_the_command(store: Store, tmp_path: Path) -> None:
    sound = fsck(store.root)
    assert (sound.returncode, sound.stderr) == (0, "")
    assert sound.stdout.startswith("checked 1 models and 4 blobs, ")
    flip(blob(store, "model"))
    damaged = fsck(store.root)
    assert (damaged.returncode, damaged.stderr) == (1, "Error: 2 damages found; pull or create those models again\n")
    assert damaged.stdout.count("damaged: ") == 2
    assert fsck(tmp_path / "none").stderr == f"Error: there is no store in {tmp_path}/none\n"


def test_the_command_for_programs(store: Store) -> None:
    bad = blob(store, "model")
    flip(bad)
    damaged = fsck(store.root, "--json")
    assert (damaged.returncode, damaged.stderr) == (1, "Error: 2 damages found; pull or create those models again\n")
    told = json.loads(damaged.stdout)
    assert {key: told[key] for key in ("store", "models", "blobs")} == {"store": str(store.root), "models": 1, "blobs": 4}
    assert told["size"] > bad.stat().st_size
    assert [finding["damage"] for finding in told["findings"]] == [True, True]
    assert told["findings"][0]["where"] == bad.name
    bad.unlink()
    (store.blobs.folder / "other").touch()
    assert [finding["damage"] for finding in json.loads(fsck(store.root, "--json").stdout)["findings"]] == [False, True]
