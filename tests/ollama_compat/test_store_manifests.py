"""Manifests, byte for byte as Ollama writes them, and those that are damaged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ollama_compat.store import manifests
from ollama_compat.store.config import ModelConfig
from ollama_compat.store.manifests import Layer, ManifestError, Manifests
from ollama_compat.store.names import ModelName

NAME = ModelName.parse("q")

# written by Ollama 0.33 for a model made from another one with a system text and parameters
WRITTEN = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":'
    b'"application/vnd.docker.container.image.v1+json","digest":'
    b'"sha256:ba577eae4b85125b44ee69afa03207d98eba922e943685995a971d60f609f316","size":148},"layers":[{"mediaType":'
    b'"application/vnd.ollama.image.model","digest":"sha256:57a81ed1c8b032ba29319eae80c3e568dbb5a16ce665a09da1a0efe2e4eb69e3",'
    b'"size":601248,"from":"p:latest"},{"mediaType":"application/vnd.ollama.image.system","digest":'
    b'"sha256:1df177d1e6d97a3e2b5c4641fb1eb6a4bfd511d5882dc1b2967db9425235845a","size":5},{"mediaType":'
    b'"application/vnd.ollama.image.params","digest":"sha256:6392aa9a43031e94c9136ce397e7fde48e1ca317c3b94a2012ea7fb3f73854b8",'
    b'"size":248}]}\n'
)
CONFIG = (
    b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"293K","file_type":"F16",'
    b'"architecture":"amd64","os":"linux"}\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Manifests:
    return Manifests(tmp_path / "manifests")


def test_a_manifest_is_written_as_ollama_writes_it() -> None:
    manifest = manifests.decode(NAME, WRITTEN, 0)
    assert manifests.encode(manifest.config, manifest.layers) == WRITTEN
    assert manifest.size == 148 + 601248 + 5 + 248
    assert manifest.digest == hashlib.sha256(WRITTEN).hexdigest()
    assert manifest.layers[0] == Layer(manifests.MODEL, manifest.layers[0].digest, 601248, source="p:latest")


def test_a_config_is_written_as_ollama_writes_it() -> None:
    assert ModelConfig.decode(CONFIG).encode() == CONFIG
    stub = ModelConfig(remote_host="http://h:1", remote_model="m", context_length=5, capabilities=["tools"])
    assert stub.encode() == (
        b'{"model_format":"","model_family":"","model_families":null,"model_type":"","file_type":"","remote_host":"http://h:1",'
        b'"remote_model":"m","capabilities":["tools"],"context_length":5,"architecture":"amd64","os":"linux"}\n'
    )
    assert ModelConfig.decode(stub.encode()) == stub


def test_a_manifest_of_the_registry_is_read() -> None:
    """With line breaks, annotations and keys in another order, as registries serve them."""
    body = json.loads(WRITTEN) | {"annotations": {"x": "y"}}
    pretty = json.dumps(dict(reversed(body.items())), indent=3).encode()
    assert manifests.decode(NAME, pretty, 0).layers == manifests.decode(NAME, WRITTEN, 0).layers


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        WRITTEN[:200],
        b'{"layers":{}}',
        b'{"layers":[1]}',
        b'{"layers":[{"digest":"sha256:../../../etc/passwd","size":1}]}',
        b'{"layers":[{"digest":"sha256:abc","size":1}]}',
        b'{"layers":[{"digest":5,"size":1}]}',
        b'{"layers":[{"size":-1}]}',
        b'{"layers":[{"size":1.5}]}',
        b'{"layers":[{"size":"1"}]}',
        b'{"config":{"digest":"x"}}',
        b'{"layers":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_a_damaged_manifest_is_an_error_with_a_name(folder: Manifests, data: bytes) -> None:
    folder.write(NAME, data)
    with pytest.raises(ManifestError, match="the manifest of q:latest is damaged"):
        folder.read(NAME)


def test_a_huge_manifest_is_not_read(folder: Manifests) -> None:
    folder.write(NAME, b"")
    with folder.path(NAME).open("wb") as file:
        file.truncate(manifests.MAX_MANIFEST + 1)
    with pytest.raises(ManifestError, match="longer than"):
        folder.read(NAME)


def test_names_come_from_the_folders(folder: Manifests, tmp_path: Path) -> None:
    names = [ModelName.parse(text) for text in ("b", "a:2", "a:1", "ns/c", "host.x:5000/ns/d:t")]
    for name in names:
        folder.write(name, WRITTEN)
    (folder.folder / "stray").write_text("x")
    (folder.folder / "h" / "n" / "m").mkdir(parents=True)
    (folder.folder / "h" / "n" / "m" / ".hidden").write_text("x")
    (folder.folder / "h" / "n" / "m" / "deep").mkdir()
    (folder.folder / "h" / "n" / "m" / "gone").symlink_to(tmp_path / "nothing")
    assert folder.names() == sorted(names)


def test_an_absent_store_has_no_names(folder: Manifests) -> None:
    assert folder.names() == []
    assert folder.references() == set()


def test_references_are_found_in_damaged_files_too(folder: Manifests) -> None:
    folder.write(NAME, WRITTEN[:500].replace(b"sha256:", b"sha256-").upper().replace(b"SHA256", b"sha256"))
    assert folder.references() == {"sha256:ba577eae4b85125b44ee69afa03207d98eba922e943685995a971d60f609f316",
                                   "sha256:57a81ed1c8b032ba29319eae80c3e568dbb5a16ce665a09da1a0efe2e4eb69e3"}  # fmt: skip


def test_a_manifest_that_is_there_may_be_kept(folder: Manifests) -> None:
    assert folder.write(NAME, b"first", replace=False)
    assert not folder.write(NAME, b"second", replace=False)
    assert folder.path(NAME).read_bytes() == b"first"
    assert folder.write(NAME, b"third")
    assert folder.path(NAME).read_bytes() == b"third"
    assert folder.temporary() == []


def test_removing_takes_empty_folders_along(folder: Manifests) -> None:
    other = ModelName.parse("ns/other")
    for name in (NAME, other):
        folder.write(name, WRITTEN)
    folder.remove(other)
    assert [path.name for path in (folder.folder / "registry.ollama.ai").iterdir()] == ["library"]
    folder.remove(NAME)
    assert list(folder.folder.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        folder.remove(NAME)
