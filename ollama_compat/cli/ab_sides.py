"""ab's servers: ours, and the other one that the flags name, which is looked at before anything is measured."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ollama_compat.cli import model_file
from ollama_compat.cli.command import Call
from ollama_compat.cli.environment import text
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.model_file import ModelFile
from ollama_compat.compare import asking, processes, sides
from ollama_compat.compare.asking import AskError
from ollama_compat.compare.sides import Side
from ollama_compat.errors import ApiError
from ollama_compat.settings import Address
from ollama_compat.store import Store
from ollama_compat.store.names import ModelName

FILE_NAME = ModelName.parse("ab-model")  # what a GGUF file is called in the stores that are made for it
TUNED = {"LLAMA_ARG_CPU_MOE": "1"}  # as experts run a model of experts beside a card
OURS = "Moellama"
OLLAMA_PORT = 11434
LISTED = 8  # models of another server that a message names
Started = contextlib.AbstractContextManager[Side]


def ours(file: ModelFile, folder: Path) -> Started:
    """Our server, started when it is entered."""
    side = Side(OURS, "ollama", Address(port=processes.free_port()), _linked(file, folder, "ours"))
    return sides.started(sides.OURS, side, folder / "ours", {})


def others(call: Call, file: ModelFile, folder: Path, *, experts: bool) -> list[Started]:
    """Those that the flags name; without any, the `ollama` of PATH. CommandError, SideError or AskError for one that cannot be
    measured."""
    if url := call.flags.text("against-openai"):
        return [contextlib.nullcontext(_openai(url, call, file))]
    if url := call.flags.text("against"):
        return [contextlib.nullcontext(_running(url, call, file))]
    return list(_ollamas(call.flags.text("ollama"), file, folder, experts=experts))


# ------------------------------------------------------------ servers that are running


def _running(url: str, call: Call, file: ModelFile) -> Side:
    """An Ollama, which has the model."""
    side = Side("Ollama", "ollama", sides.address(url, OLLAMA_PORT), "", key=text(os.environ, "OLLAMA_API_KEY"))
    there = [str(entry.get("name")) for entry in asking.call(side, "/api/tags").get("models") or ()]
    wanted = call.flags.text("against-model") or (file.stored.short() if file.stored else "")
    if not wanted:
        raise CommandError(f"--against-model has to say which of its models {side.address.url} is asked for: {_listed(there)}")
    try:
        side = dataclasses.replace(side, model=ModelName.parse(wanted).short())
        asking.call(side, "/api/show", {"model": side.model})
    except (ApiError, AskError) as error:
        raise CommandError(f"{error}; --against-model names another one of its models: {_listed(there)}") from error
    return side


def _openai(url: str, call: Call, file: ModelFile) -> Side:
    """Any server of OpenAI's API, by its only model, or the one of the same name."""
    key = os.environ.get("OPENAI_API_KEY", "")
    side = Side("the other server", "openai", sides.address(url.rstrip("/").removesuffix("/v1")), "", key=key)
    there = [str(entry.get("id")) for entry in asking.call(side, "/v1/models").get("data") or ()]
    named = call.flags.text("against-model")
    wanted = [named] if named else [call.words[0], file.name]
    found = next((name for name in wanted if name in there), there[0] if len(there) == 1 and not named else "")
    if not found:
        raise CommandError(f"{side.address.url} has no model {wanted[-1]}; name one with --against-model: {_listed(there)}")
    return dataclasses.replace(side, model=found)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "") if names else "none"


def same_file(side: Side, file: ModelFile, folder: Path) -> bool | None:
    """Whether a running Ollama has the same model file, by the digest that it tells; None where it tells none."""
    modelfile = str(asking.call(side, "/api/show", {"model": side.model}).get("modelfile"))
    told = re.search(r"^FROM .*(sha256-[0-9a-f]{64})$", modelfile, re.M)
    source, name = _source(file, folder)
    path = source.get(name).model_path
    return None if told is None or path is None else told[1] == path.name


# ------------------------------------------------------------ servers that are started


def _ollamas(path: str, file: ModelFile, folder: Path, *, experts: bool) -> Iterator[Started]:
    """As it comes, and for a model of experts beside a card also as experts tune it."""
    binary = shutil.which(path or "ollama")
    if binary is None:
        what = f"there is no program {path!r}" if path else "there is no `ollama` on the PATH"
        raise CommandError(f"{what}; name one with --ollama, or a running server with --against or --against-openai")
    command = [str(Path(binary).resolve()), "serve"]
    variants: list[tuple[str, dict[str, str], dict[str, int]]] = [("Ollama", {}, {})]
    if experts and shutil.which("nvidia-smi"):
        variants.append(("Ollama, tuned", TUNED, {"num_gpu": 99}))
    for number, (name, environ, options) in enumerate(variants):
        home = folder / f"ollama-{number}"
        side = Side(name, "ollama", Address(port=processes.free_port()), _linked(file, folder, home.name), options)
        yield sides.started(command, side, home, environ)


def _linked(file: ModelFile, folder: Path, home: str) -> str:
    """A store in that home with the model's files; the model's name there."""
    source, name = _source(file, folder)
    sides.link_stored(source, name, folder / home / "models")
    return name.short()


def _source(file: ModelFile, folder: Path) -> tuple[Store, ModelName]:
    """The store that has the model, which for a GGUF file is made once, and its name there."""
    if file.stored is not None:
        return model_file.store(), file.stored
    root = folder / "file"
    if not root.exists():
        sides.link_file(file.path, FILE_NAME, root)
    return Store(root), FILE_NAME


# ------------------------------------------------------------ what a report says of them


def version(side: Side) -> str:
    """As the server tells it."""
    if side.name == OURS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version("moellama")
    if side.dialect == "ollama":
        return str(asking.call(side, "/api/version").get("version", ""))
    told = next(filter(None, (_told(side, path, key) for path, key in (("/version", "version"), ("/props", "build_info")))), "")
    return f"{told} at {side.address.url}".lstrip()


def _told(side: Side, path: str, key: str) -> str:
    """What vLLM or llama-server says of itself; nothing where this is another server."""
    with contextlib.suppress(AskError):
        return str(asking.call(side, path).get(key) or "")
    return ""


def settings(side: Side) -> str:
    """What was set for it."""
    told: Mapping[str, Any] = {**side.environ, **side.options}
    return ", ".join(f"{name}={value}" for name, value in told.items())
