"""Models that lie in several files at Hugging Face."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_registry import FakeRegistry, serving
from store_files import assert_sound, split_model

from ollama_compat.errors import ApiError
from ollama_compat.registry import Registry
from ollama_compat.registry.errors import NotFound, RegistryError
from ollama_compat.registry.sharded import Shard, choose
from ollama_compat.store import Store
from ollama_compat.store.names import ModelName


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[FakeRegistry]:
    """With a model in three files, in two folders for two quantisations."""
    registry = FakeRegistry()
    for path in split_model(tmp_path):
        data = path.read_bytes()
        for quant in ("Q4_K_M", "Q8_0"):
            oid = registry.add(data).removeprefix("sha256:")
            entry = {"type": "file", "path": f"{quant}/{path.name}", "size": len(data), "lfs": {"oid": oid, "size": len(data)}}
            registry.files.append(entry)
    registry.files.append({"type": "file", "path": "README.md", "size": 7, "oid": "0" * 40})
    async with serving(registry):
        yield registry


async def pull(registry: FakeRegistry, store: Store, tag: str) -> list[str]:
    client = Registry(store, Path("/nowhere"), {})
    try:
        name = ModelName.parse(f"{registry.host}/user/repo:{tag}")
        return [line["status"] async for line in client.pull(name, insecure=True)]
    finally:
        await client.close()


async def test_the_files_become_one_model(registry: FakeRegistry, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    statuses = await pull(registry, store, "q8_0")
    assert statuses[0] == "pulling manifest"
    assert "verifying sha256 digest" in statuses
    assert statuses[-2:] == ["writing manifest", "success"]
    assert statuses.count("success") == 1
    assert registry.requests("GET", "resolve/main/Q8_0")
    assert registry.requests("GET", "resolve/main/Q4_K_M") == []
    model = store.get(ModelName.parse(f"{registry.host}/user/repo:q8_0"))
    assert_sound(store)
    assert {path.name.replace("-", ":") for path in store.blobs.folder.iterdir()} == model.manifest.digests


async def test_a_quantisation_that_there_is_not(registry: FakeRegistry, tmp_path: Path) -> None:
    with pytest.raises(ApiError) as error:
        await pull(registry, Store(tmp_path / "models"), "Q2_K")
    assert error.value.message == "pull model manifest: file does not exist"


def files(*stems: str) -> list[Shard]:
    return [Shard(f"{stem}-0000{n}-of-00002.gguf", "0" * 64, 1) for stem in stems for n in (2, 1)]


@pytest.mark.parametrize(
    ("tag", "stem"),
    [
        ("Q4_K_M", "a/M-Q4_K_M"),
        ("q4_k_xl", "a/M-UD-Q4_K_XL"),
        ("UD-Q4_K_XL", "a/M-UD-Q4_K_XL"),
        ("latest", "a/M-Q4_K_M"),
        ("BF16", "BF16/M.BF16"),
    ],
)
def test_which_files_a_tag_means(tag: str, stem: str) -> None:
    there = files("a/M-UD-Q4_K_XL", "BF16/M.BF16", "a/M-Q4_K_M", "a/M-IQ4_K_M")
    assert [shard.path for shard in choose(there, tag)] == [f"{stem}-0000{n}-of-00002.gguf" for n in (1, 2)]


def test_a_tag_is_a_whole_word() -> None:
    with pytest.raises(NotFound):
        choose(files("a/M-Q4_K_M"), "Q4_K")


def test_all_files_have_to_be_there() -> None:
    with pytest.raises(RegistryError, match="the repository has 1 of 2 files of M-Q8_0"):
        choose(files("M-Q8_0")[:1], "Q8_0")
