"""The embedded model: in the store when somebody asks for it, and not before."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from store_files import assert_sound, describe, make, upload, write_gguf

from ollama_compat.store import Store, default_model
from ollama_compat.store.names import ModelName

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "ollama_compat/data/demo-moe-Q4_K_M.gguf"
NAME = ModelName.parse("demo-moe")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def test_it_is_written_as_an_ordinary_model(store: Store) -> None:
    assert default_model.ensure(store, NAME) == NAME
    model = store.get(NAME)
    assert model.model_path is not None
    assert model.model_path.read_bytes() == DEMO.read_bytes()
    assert model.capabilities() == ["tools", "thinking", "completion"]
    assert "Apache License" in model.licenses[0]
    assert_sound(store)
    answer = describe(store, "demo-moe")
    assert answer["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "qwen3moe",
        "families": ["qwen3moe"],
        "parameter_size": "21.13M",
        "quantization_level": "Q4_K_M",
    }


def test_before_that_no_list_shows_it(store: Store) -> None:
    assert store.list() == []
    assert store.resolve(NAME) is None
    assert default_model.ensure(store, ModelName.parse("demo")) is None
    assert default_model.ensure(store, ModelName.parse("demo-moe:other")) is None
    assert default_model.ensure(store, ModelName.parse("me/demo-moe")) is None
    assert store.list() == []


def test_showing_it_is_a_use(store: Store) -> None:
    assert describe(store, "Demo-MoE")["details"]["family"] == "qwen3moe"
    assert [model.name.short() for model in store.list()] == ["demo-moe:latest"]


async def test_so_is_making_a_model_from_it(store: Store) -> None:
    await make(store, "mine", from_="demo-moe", system="x")
    assert [name.short() for name in store.names()] == ["demo-moe:latest", "mine:latest"]


async def test_a_model_of_the_users_with_that_name_stays(store: Store, tmp_path: Path) -> None:
    digest = await upload(store, write_gguf(tmp_path / "m.gguf"))
    await make(store, "Demo-Moe", files={"m.gguf": digest})
    assert default_model.ensure(store, NAME) == ModelName.parse("Demo-Moe")
    assert store.get(NAME).config.model_family == "llama"


def test_it_comes_back_after_it_was_deleted(store: Store) -> None:
    for _ in range(2):
        assert default_model.ensure(store, NAME)
        store.delete(NAME)
        assert list(store.blobs.folder.iterdir()) == []


def test_many_may_ask_at_once(store: Store) -> None:
    """Threads of this process, and another process."""
    code = (
        "import sys; from pathlib import Path; from ollama_compat.store import Store, default_model;"
        "from ollama_compat.store.names import ModelName;"
        "assert default_model.ensure(Store(Path(sys.argv[1])), ModelName.parse('demo-moe'))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, store.root], cwd=ROOT)
    found: list[ModelName | None] = []
    threads = [threading.Thread(target=lambda: found.append(default_model.ensure(store, NAME))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert child.wait(30) == 0
    assert found == [NAME] * 6
    assert_sound(store)
    assert len(list(store.blobs.folder.iterdir())) == 3
