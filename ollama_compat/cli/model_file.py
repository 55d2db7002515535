"""The model file that a word means, for commands that measure: a GGUF file, or a model of the store on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ollama_compat.cli.errors import CommandError
from ollama_compat.errors import ApiError
from ollama_compat.settings import Settings
from ollama_compat.store import Store
from ollama_compat.store.default_model import ensure
from ollama_compat.store.names import ModelName


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFile:
    """A model and where its GGUF file is."""

    name: str
    path: Path
    stored: ModelName | None  # None: the word was a path


def find(word: str, environ: Mapping[str, str] = os.environ) -> ModelFile:
    """CommandError when there is neither. The embedded model is put into the store when it is asked for, as the server does."""
    path = Path(word)
    if path.is_file():
        return ModelFile(path.name, path.resolve(), None)
    models = store(environ)
    with contextlib.suppress(OSError):  # where the store cannot be written, the model may still be there
        ensure(models, _name(word))
    try:
        stored = models.get(_name(word))
    except ApiError as error:
        raise CommandError(str(error)) from error
    if stored.model_path is None:
        raise CommandError(f"{word} has no model file on this machine")
    return ModelFile(stored.name.short(), stored.model_path, stored.name)


def card(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What the environment says of cards, by the names that jobs have for it: as a server would be told."""
    told = Settings.from_env(environ)
    return {name: getattr(told, name) for name in ("vram", "gpu_overhead", "pcie", "num_cpu_moe")}


def store(environ: Mapping[str, str] = os.environ) -> Store:
    """The models of this machine."""
    return Store(Settings.from_env(environ).models)


def every(environ: Mapping[str, str] = os.environ) -> list[ModelFile]:
    """All models of the store that have a file, by name; models may share one."""
    found = sorted(store(environ).list(), key=lambda stored: stored.name.short())
    return [ModelFile(each.name.short(), each.model_path, each.name) for each in found if each.model_path is not None]


def largest(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The largest file of the store; None when it has none."""
    blobs = Settings.from_env(environ).models / "blobs"
    files = [path for path in blobs.glob("sha256-*") if path.is_file()] if blobs.is_dir() else []
    return max(files, key=lambda path: path.stat().st_size, default=None)


def _name(word: str) -> ModelName:
    try:
        return ModelName.parse(word)
    except ApiError as error:
        raise CommandError(str(error)) from error
