"""The model that comes with the package. It is no part of a store until somebody asks for it by its name."""

from __future__ import annotations

import contextlib
import importlib.resources
from importlib.resources.abc import Traversable
from pathlib import Path

from ollama_compat.store import Making, Store, manifests
from ollama_compat.store.config import ModelConfig
from ollama_compat.store.header import ModelHeader
from ollama_compat.store.manifests import Layer
from ollama_compat.store.names import ModelName

NAME = ModelName.parse("demo-moe")

_FILE = "demo-moe-Q4_K_M.gguf"
_LICENSE = "demo-moe-LICENSE.txt"
_BLOCK = 1 << 20  # bytes


def ensure(store: Store, name: ModelName) -> ModelName | None:
    """The embedded model's name on disk, when `name` is that name; it is written into the store first if it is not there.

    A model that a user has given this name stays. None for any other name. Copies a file: call it in a thread.
    """
    if not name.same(NAME):
        return None
    if store.resolve(NAME) is None:
        _install(store)
    return store.resolve(NAME)


def packaged() -> Path | None:
    """The file itself, for whoever has no store to write to; None where the package lies in an archive."""
    path = importlib.resources.files("ollama_compat") / "data" / _FILE
    return path if isinstance(path, Path) and path.is_file() else None


def _install(store: Store) -> None:
    data = importlib.resources.files("ollama_compat") / "data"
    with store.making() as making, contextlib.ExitStack() as stack:
        header = ModelHeader.read(stack.enter_context(importlib.resources.as_file(data / _FILE)))
        config = ModelConfig.of_file(header)
        model = _add_file(making, data / _FILE)
        license_, _ = making.add(manifests.LICENSE, (data / _LICENSE).read_bytes())
        config_layer, _ = making.add(manifests.CONFIG, config.encode())
        store.put_new(NAME, config_layer, (model, license_))


def _add_file(making: Making, source: Traversable) -> Layer:
    with making.writer() as writer, source.open("rb") as file:
        while block := file.read(_BLOCK):
            writer.write(block)
        return making.finish(manifests.MODEL, writer)[0]
