"""A Modelfile as the body of /api/create: paths resolved, files by their digests, parameters as values."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ollama_compat.cli.digest import digests
from ollama_compat.cli.errors import CommandError
from ollama_compat.modelfile import DEPRECATED, MODEL, Command, Modelfile, parameter

_SEMVER = re.compile(r"v\d+(\.\d+(\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?)?)?")
_TEXTS = frozenset({"template", "system", "renderer", "parser"})
_FILES = {MODEL: "files", "draft": "draft_files", "adapter": "adapters"}
FILE_FIELDS = tuple(_FILES.values())


@dataclasses.dataclass(slots=True)
class Body:
    """The body as it grows. The file fields map local paths to digests until the files are sent."""

    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    paths: dict[str, list[str]] = dataclasses.field(default_factory=lambda: {MODEL: [], "draft": []})


def create_body(modelfile: Modelfile, directory: Path) -> dict[str, Any]:
    """The body without its model name; relative paths are taken from `directory`. CommandError, OSError as they come."""
    body = Body()
    for command in modelfile.commands:
        _add(body, command, directory)
    return body.fields


def _add(body: Body, command: Command, directory: Path) -> None:
    fields, name = body.fields, command.name
    if name in _FILES:
        _add_files(body, command, directory)
    elif name in _TEXTS:
        fields[name] = command.args
    elif name == "license":
        fields.setdefault("license", []).append(command.args)
    elif name == "message":
        role, _, text = command.args.partition(": ")
        fields.setdefault("messages", []).append({"role": role, "content": text})
    elif name == "requires":
        fields["requires"] = _version(command.args)
    elif name in DEPRECATED:
        print(f"warning: parameter {name} is deprecated")
    else:
        _add_parameter(fields.setdefault("parameters", {}), command)


def _add_files(body: Body, command: Command, directory: Path) -> None:
    path = expand(command.args, directory)
    try:
        found = digests(path)
    except FileNotFoundError as error:
        if command.name == MODEL:
            body.fields["from"] = command.args
            return
        raise CommandError(f"stat {path}: no such file or directory") from error
    if command.name in body.paths:
        _refuse_same(path, body.paths["draft" if command.name == MODEL else MODEL])
        body.paths[command.name].append(os.path.realpath(path))
    field = _FILES[command.name]
    body.fields[field] = found if command.name == "adapter" else {**body.fields.get(field, {}), **found}


def _refuse_same(path: Path, others: Iterable[str]) -> None:
    if os.path.realpath(path) in others:
        raise CommandError(f"DRAFT must not reference the same local path as FROM: {path}")


def _add_parameter(parameters: dict[str, Any], command: Command) -> None:
    """Lists grow, everything else is replaced."""
    try:
        value = parameter(command.name, [command.args])
    except ValueError as error:
        raise CommandError(str(error)) from error
    before = parameters.get(command.name)
    parameters[command.name] = before + value if isinstance(before, list) else value


def _version(text: str) -> str:
    version = text if text.startswith("v") else f"v{text}"
    if not _SEMVER.fullmatch(version):
        raise CommandError("requires must be a valid semver (e.g. 0.14.0)")
    return version.removeprefix("v")


def expand(text: str, directory: Path) -> Path:
    """An absolute path: `~` and `~user` are homes, everything else relative is in `directory`."""
    if text.startswith("~"):
        home = os.path.expanduser(text)
        if home.startswith("~"):
            name = text[1:].partition("/")[0]
            raise CommandError(f"failed to find user '{name}': user: unknown user {name}")
        return Path(os.path.abspath(home))
    return Path(os.path.abspath(directory / text))


def sent_names(files: Mapping[str, str]) -> dict[str, str]:
    """Local path -> the name that the server gets: relative to the directory that all files share, else the bare name."""
    root = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files]) if len(files) > 1 else ""
    return {file: Path(os.path.relpath(file, root) if root else os.path.basename(file)).as_posix() for file in files}
