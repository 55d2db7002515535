"""The store as a whole: finding, listing, copying, deleting, and what goes away with a model."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path

import permissions
import pytest
from store_files import assert_sound, language_model, make, upload, write_gguf

from ollama_compat.errors import ApiError, InternalError, ModelNotFound
from ollama_compat.store import Store
from ollama_compat.store.names import ModelName

CRASHING = Path(__file__).with_name("crashing_store.py")


@pytest.fixture
async def store(tmp_path: Path) -> Store:
    """With one model, `base`."""
    store = Store(tmp_path / "models")
    digest = await upload(store, write_gguf(tmp_path / "m.gguf"))
    await make(store, "base", files={"m.gguf": digest})
    return store


def name(text: str) -> ModelName:
    return ModelName.parse(text)


def blobs(store: Store) -> set[str]:
    return {path.name for path in store.blobs.folder.iterdir()}


# ---------------------------------------------------------------- finding


async def test_the_case_on_disk_is_kept_and_found_in_any_case(store: Store) -> None:
    await make(store, "User/My-Model:V1", from_="base")
    assert store.resolve(name("user/MY-model:v1")) == name("User/My-Model:V1")
    assert store.get(name("USER/my-model:v1")).name.short() == "User/My-Model:V1"
    await make(store, "user/my-model:v1", from_="BASE", system="again")
    assert [found.short() for found in store.names()] == ["User/My-Model:V1", "base:latest"]
    assert store.resolve(name("user/my-model")) is None


async def test_a_new_name_takes_the_case_of_what_is_there(store: Store) -> None:
    await make(store, "User/My-Model:V1", from_="base")
    assert store.canonical(name("user/my-model:v2")).short() == "User/My-Model:v2"
    assert store.canonical(name("USER/other")).short() == "User/other:latest"
    assert store.canonical(name("other/base")).short() == "other/base:latest"


def test_a_name_that_is_not_there(store: Store) -> None:
    with pytest.raises(ModelNotFound) as error:
        store.get(name("nope"))
    assert (error.value.status, error.value.message) == (404, "model 'nope:latest' not found")


def test_an_empty_store_lists_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "nowhere")
    assert store.list() == []
    assert store.resolve(name("x")) is None
    assert not (tmp_path / "nowhere").exists()


async def test_the_list_begins_with_the_latest(store: Store) -> None:
    for text, second in (("b", 50), ("c", 70), ("a", 60)):
        await make(store, text, from_="base")
        os.utime(store.manifests.path(name(text)), (second, second))
    os.utime(store.manifests.path(name("base")), (10, 10))
    assert [model.name.model for model in store.list()] == ["c", "a", "b", "base"]


async def test_damaged_models_are_left_out_of_the_list(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    await make(store, "other", from_="base", system="lost")
    store.manifests.path(name("base")).write_bytes(b"{")
    (store.blobs.folder / store.get(name("other")).manifest.layers[1].digest.replace(":", "-")).unlink()
    fresh = Store(store.root)
    with caplog.at_level(logging.WARNING):
        assert fresh.list() == []
    assert len(caplog.records) == 2
    with pytest.raises(InternalError, match="a blob of other:latest is missing"):
        fresh.get(name("other"))


def test_what_cannot_be_looked_at_hides_no_other_model(store: Store) -> None:
    loop, pipe = (store.manifests.path(name(model)) for model in ("loop", "pipe"))
    for path in (loop, pipe):
        path.parent.mkdir()
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    assert [model.name for model in Store(store.root).list()] == [name("base")]
    assert store.resolve(name("loop")) is None
    store.copy(name("BASE"), name("other"))
    before = blobs(store)
    store.delete(name("base"))
    store.delete(name("other"))
    assert blobs(store) == before  # nobody knows what the other manifest needs


def test_a_folder_that_may_not_be_read_hides_no_other_model(store: Store) -> None:
    folder = store.manifests.path(ModelName.parse("host/of/another")).parent
    folder.mkdir(parents=True)
    folder.chmod(0)
    with permissions.obeyed():
        assert store.names() == [name("base")]


def test_changes_of_other_programs_are_seen(store: Store) -> None:
    assert store.get(name("base")).system == ""
    path = store.manifests.path(name("base"))
    other = Store(store.root)
    asyncio.run(_make_other(other))
    assert store.get(name("base")).system == "changed"
    path.unlink()
    with pytest.raises(ModelNotFound):
        store.get(name("base"))


async def _make_other(store: Store) -> None:
    await make(store, "base", from_="base", system="changed")


def test_a_model_file_that_is_gone_or_damaged(store: Store) -> None:
    model = store.get(name("base"))
    assert model.model_path is not None
    model.model_path.write_bytes(b"GGUFxx")
    fresh = Store(store.root)
    assert fresh.get(name("base")).header is None
    assert fresh.get(name("base")).capabilities() == []
    model.model_path.unlink()
    assert Store(store.root).get(name("base")).chat_template is None


# ---------------------------------------------------------------- copying and deleting


async def test_a_copy_is_the_same_manifest(store: Store) -> None:
    store.copy(name("BASE"), name("ns/copy:t"))
    assert store.get(name("ns/copy:t")).digest == store.get(name("base")).digest
    assert store.manifests.path(name("ns/copy:t")).read_bytes() == store.manifests.path(name("base")).read_bytes()
    store.copy(name("base"), name("Base"))
    assert [found.short() for found in store.names()] == ["base:latest", "ns/copy:t"]


def test_a_copy_of_nothing(store: Store) -> None:
    with pytest.raises(ModelNotFound):
        store.copy(name("nope"), name("x"))
    assert len(store.names()) == 1


async def test_deleting_removes_only_what_nobody_needs(store: Store) -> None:
    alone = blobs(store)
    await make(store, "one", from_="base", system="shared", parameters={"seed": 1})
    await make(store, "two", from_="one", template="{{ .Prompt }}!")
    store.delete(name("one"))
    assert_sound(store)
    assert store.get(name("two")).system == "shared"
    store.delete(name("TWO"))
    assert blobs(store) == alone
    store.delete(name("base"))
    assert blobs(store) == set()
    assert list(store.manifests.folder.iterdir()) == []
    with pytest.raises(ModelNotFound):
        store.delete(name("base"))


async def test_replacing_removes_what_the_old_model_alone_needed(store: Store) -> None:
    await make(store, "m", from_="base", system="old")
    before = blobs(store)
    await make(store, "m", from_="base", system="new")
    assert len(blobs(store)) == len(before)
    assert_sound(store)
    store.copy(name("base"), name("m"))
    assert len(blobs(store)) == len(before) - 1


async def test_nothing_is_pruned_on_replacing_when_told_so(store: Store) -> None:
    keeping = Store(store.root, no_prune=True)
    await make(keeping, "m", from_="base", system="old")
    before = blobs(store)
    await make(keeping, "m", from_="base", system="new")
    assert before < blobs(store)


async def test_a_damaged_manifest_keeps_its_blobs(store: Store) -> None:
    await make(store, "m", from_="base", system="x")
    path = store.manifests.path(name("m"))
    path.write_bytes(path.read_bytes()[:-3])
    store.delete(name("base"))
    assert len(blobs(store)) == 3  # the config, that both had; the model; the system text
    store.delete(name("m"))
    assert store.names() == []


async def test_a_manifest_that_cannot_be_read_keeps_everything(store: Store) -> None:
    await make(store, "m", from_="base", system="x")
    path = store.manifests.path(name("m"))
    path.chmod(0)
    before = blobs(store)
    with permissions.obeyed():
        store.delete(name("base"))
    assert blobs(store) == before


async def test_a_model_in_the_making_keeps_its_blobs(store: Store) -> None:
    manifest = store.get(name("base")).manifest
    with store.making() as making:
        for digest in manifest.digests:
            assert making.hold(digest)
        new, _ = making.add("text", b"new")
        store.delete(name("base"))
        store.collect([new.digest])
        assert all(store.has_blob(digest) for digest in {*manifest.digests, new.digest})
    store.collect([*manifest.digests, new.digest])
    assert blobs(store) == set()


# ---------------------------------------------------------------- at the same time, and cut short


async def test_many_changes_side_by_side(store: Store, tmp_path: Path) -> None:
    digest = await upload(store, write_gguf(tmp_path / "n.gguf", pairs=language_model("llama", 7)))
    await make(store, "keeper", files={"n.gguf": digest})  # or the upload would go with the last model that has it

    async def churn(number: int) -> None:
        for turn in range(3):
            fields = {"files": {"n.gguf": digest}} if number % 3 == 0 else {"from_": "base"}
            await make(store, f"m{number % 4}", system=f"text {turn}", parameters={"seed": number}, **fields)
            await asyncio.to_thread(store.copy, name(f"m{number % 4}"), name(f"c{number}"))
            try:
                await asyncio.to_thread(store.delete, name(f"m{number % 4}"))
            except ModelNotFound:
                continue  # another one was faster
            await asyncio.to_thread(store.list)

    results = await asyncio.gather(*(churn(number) for number in range(12)), return_exceptions=True)
    # a copy may come too late; nothing else may fail
    assert not [error for error in results if error is not None and not isinstance(error, ModelNotFound)]
    assert_sound(store)
    assert len(Store(store.root).list()) == len(store.names())


async def test_the_same_model_made_many_times_at_once(store: Store) -> None:
    await asyncio.gather(*(make(store, "m", from_="base", system=f"text {i % 3}") for i in range(12)))
    assert_sound(store)
    assert len(blobs(store)) == 3


def test_a_kill_at_any_moment_leaves_a_sound_store(tmp_path: Path) -> None:
    """The child runs the same changes again and again and dies before its n-th write, sync, rename or removal."""
    write_gguf(tmp_path / "m.gguf")
    run = subprocess.run([sys.executable, CRASHING, tmp_path], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(run.stdout) > 20  # so many places to die at


async def test_a_caller_that_stops_listening_leaves_the_old_model(store: Store) -> None:
    from ollama_compat.schema import CreateRequest
    from ollama_compat.store.create import create

    progress = create(store, CreateRequest(model="base", from_="base", system="x"))
    await anext(progress)
    await progress.aclose()  # type: ignore[attr-defined]
    assert store.get(name("base")).system == ""
    with pytest.raises(ApiError):
        await make(store, "base", from_="base", template="{{ if }}")
    assert store.get(name("base")).template is None
