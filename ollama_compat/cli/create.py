"""create: reads a Modelfile, sends the files it names, and has the server make the model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ollama_compat import modelfile
from ollama_compat.cli.body import FILE_FIELDS, create_body, expand, sent_names
from ollama_compat.cli.client import Client
from ollama_compat.cli.command import Call
from ollama_compat.cli.digest import digests
from ollama_compat.cli.errors import CommandError, StatusError
from ollama_compat.cli.json_output import print_lines
from ollama_compat.cli.progress import Progress, Spinner
from ollama_compat.cli.transfer import Steps

GATHERING = "gathering model components"
OLLAMAS_LEVELS = ("F32", "F16", "BF16", "Q8_0", "Q4_K_S", "Q4_K_M", "Q4_K")


def create(call: Call) -> None:
    """`create MODEL [-f Modelfile] [-q LEVEL] [--json]`."""
    name = call.words[0]
    with Progress(sys.stderr) as progress:
        _check_name(name)
        if call.flags.on("experimental"):
            raise CommandError("experimental safetensors models are not supported")
        source, directory = _read(call.flags.text("file"))
        spinner = Spinner(GATHERING)
        progress.add(spinner)
        body = {"model": name, **_body(source, directory)}
        spinner.finish()
        _quantize(body, call.flags.text("quantize"), call.flags.text("draft-quantize"))
        if call.flags.text("imatrix"):
            _weigh(call.client, body, call.flags.text("imatrix"))
        for field in (*FILE_FIELDS, "imatrix"):
            if field in body:
                body[field] = _send(call.client, body[field], progress)
        if call.flags.on("json"):
            print_lines(call.client.stream("/api/create", body))
            return
        steps = Steps(progress, "pulling {}...", GATHERING)
        for answer in call.client.stream("/api/create", body):
            steps.show(answer)


def _check_name(name: str) -> None:
    from ollama_compat.store.names import InvalidName, ModelName  # only here: the store takes long to import

    try:
        ModelName.parse(name)
    except InvalidName as error:
        raise CommandError(f"invalid model name: {name}") from error


def _read(name: str) -> tuple[modelfile.Modelfile, Path]:
    """The Modelfile and its directory. Without one the model is whatever lies in the working directory."""
    path = Path(name or "Modelfile").absolute()
    try:
        data = path.read_bytes() if path.exists() else None
        text = "FROM .\n" if data is None else data
        return modelfile.parse(text), path.parent if data is not None else Path.cwd()
    except modelfile.ModelfileError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"read {path}: {(error.strerror or '').lower()}") from error


def _body(source: modelfile.Modelfile, directory: Path) -> dict[str, Any]:
    try:
        return create_body(source, directory)
    except OSError as error:
        raise CommandError(f"open {error.filename}: {(error.strerror or '').lower()}") from error


def _quantize(body: dict[str, Any], level: str, draft_level: str) -> None:
    if level:
        body["quantize"] = _spelled(level)
    if draft_level:
        if not body.get("draft_files"):
            raise CommandError("--draft-quantize requires a DRAFT model")
        body["draft_quantize"] = _spelled(draft_level)


def _weigh(client: Client, body: dict[str, Any], file: str) -> None:
    if "quantize" not in body:
        raise CommandError("--imatrix requires --quantize")
    try:
        client.loading()  # a route that an Ollama has not; it would quantise without a word about the matrix
    except StatusError as error:
        raise CommandError("this server knows no importance matrices") from error
    path = expand(file, Path.cwd())
    try:
        body["imatrix"] = digests(path)
    except OSError as error:
        raise CommandError(f"open {path}: {(error.strerror or '').lower()}") from error


def _spelled(level: str) -> str:
    """Levels that Ollama knows as they were typed; those that only our server makes as it wants them spelled."""
    return level if level.upper() in OLLAMAS_LEVELS else level.upper()


def _send(client: Client, files: Mapping[str, str], progress: Progress) -> dict[str, str]:
    """Send what the server lacks; name -> digest."""
    names = sent_names(files)
    for file, digest in files.items():
        _send_file(client, Path(file), digest, progress)
    return {names[file]: digest for file, digest in files.items()}


def _send_file(client: Client, path: Path, digest: str, progress: Progress) -> None:
    size, done = max(path.stat().st_size, 1), 0
    spinner = Spinner(f"copying file {digest} 0%")

    def sent(count: int) -> None:
        nonlocal done
        done += count
        spinner.message = f"copying file {digest} {100 * done // size}%"

    progress.add(spinner)
    if not client.has_blob(digest):
        client.send_blob(digest, path, sent)
    spinner.message = f"copying file {digest} 100%"
    spinner.finish()
