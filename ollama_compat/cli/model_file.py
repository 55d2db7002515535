"""The model file that a word means, for commands that measure: a GGUF file, or a model of the store on this machine."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ollama_compat.cli.errors import CommandError
from ollama_compat.errors import ApiError
from ollama_compat.settings import Settings
from ollama_compat.store import Store, default_model
from ollama_compat.store.header import ModelHeader
from ollama_compat.store.names import ModelName
from runtime.gguf_file import GGUFError


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFile:
    """A model and where its GGUF file is."""

    name: str
    path: Path
    stored: ModelName | None  # None: the word was a path


def find(word: str, environ: Mapping[str, str] = os.environ) -> ModelFile:
    """CommandError when there is neither. The embedded model is put into the store when it is asked for, as the server does."""
    if os.path.isfile(word):  # Path's own method raises where a folder may not be looked into
        path = Path(word)
        return ModelFile(path.name, path.resolve(), None)
    models = store(environ)
    try:
        name = ModelName.parse(word)
        try:
            default_model.ensure(models, name)
        except OSError:  # the store cannot be written
            if (packaged := default_model.packaged()) is not None:
                return ModelFile(name.short(), packaged, None)
        stored = models.get(name)
    except ApiError as error:
        raise CommandError(_no_path(word) or str(error)) from error
    if stored.model_path is None:
        raise CommandError(f"{word} has no model file on this machine")
    return ModelFile(stored.name.short(), stored.model_path, stored.name)


def header(file: ModelFile) -> ModelHeader:
    """CommandError where the file cannot be read, or is no model by itself."""
    try:
        found = ModelHeader.read(file.path)
    except (GGUFError, OSError) as error:
        raise CommandError(str(error)) from error
    if found.kind == "adapter":
        raise CommandError(f"{file.name} is an adapter: name the model that it belongs to")
    if found.is_projector:
        raise CommandError(f"{file.name} is the part of a model that sees or hears: name the model that it belongs to")
    if not found.parameter_count and "split.count" not in found.types:  # the first part of several may hold none
        raise CommandError(f"{file.name} has no weights")
    return found


def loading(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What the environment says of how models are loaded, by the names that jobs have for it: as a server would be told. What of
    it is not taken as it stands is said on stderr."""
    told = Settings.from_env(environ)
    for warning in told.warnings:
        print(warning, file=sys.stderr)
    return {name: getattr(told, name) for name in ("vram", "gpu_overhead", "pcie", "num_cpu_moe", "kv_cache_type")}


def store(environ: Mapping[str, str] = os.environ) -> Store:
    """The models of this machine."""
    return Store(Settings.from_env(environ).models)


def every(environ: Mapping[str, str] = os.environ) -> list[ModelFile]:
    """All models of the store that have a file, by name; models may share one."""
    found = sorted(store(environ).list(), key=lambda stored: stored.name.short())
    return [ModelFile(each.name.short(), each.model_path, each.name) for each in found if each.model_path is not None]


def largest(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The largest file of the store; None when it has none that may be looked at."""
    blobs = Settings.from_env(environ).models / "blobs"
    try:
        sizes = {blobs / name: (blobs / name).stat().st_size for name in os.listdir(blobs) if name.startswith("sha256-")}
    except OSError:
        return None
    return max(sizes, key=lambda path: sizes[path], default=None)


def unreadable(environ: Mapping[str, str] = os.environ) -> str:
    """What keeps this user from the store; nothing where it can be read, or is not there yet."""
    root = Settings.from_env(environ).models
    try:
        os.listdir(root)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"the folder of models {root} cannot be read: {(error.strerror or str(error)).lower()}"
    return ""


def _no_path(word: str) -> str:
    """What is wrong with a word that is meant as a path; nothing where it is none."""
    if os.path.isdir(word):
        return f"{word} is a folder: name the GGUF file in it"
    meant = word.startswith(("/", "./", "../", "~")) or word.lower().endswith(".gguf")
    return f"there is no file {word}, or it cannot be reached" if meant else ""
