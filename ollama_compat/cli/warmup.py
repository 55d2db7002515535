"""warmup: the kernels that models need, compiled before anybody waits for them, without a server."""

from __future__ import annotations

import json
from typing import Any

from ollama_compat.cli import model_file, work
from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.model_file import ModelFile


def warmup(call: Call) -> None:
    """`warmup [MODEL...]`; without a name all models of the store. Raises CommandError, after the rest, with what went wrong."""
    files = [model_file.find(word) for word in call.words] or model_file.every()
    if not files:
        raise CommandError(f"there are no models in {model_file.store().root}")
    kind = model_file.loading()["kv_cache_type"]
    result = work.run("warmup", {"paths": sorted({str(file.path) for file in files}), "kv_cache_type": kind})
    print(json.dumps(result) if call.flags.on("json") else _text(result, len(files)))
    problems = [f"{_name(files, path)}: {error}" for path, error in result["failed"].items()]
    if not result["folder"]:
        problems.append("compiled kernels are not kept: set XDG_CACHE_HOME or NUMBA_CACHE_DIR to a folder that can be written")
    if problems:
        raise CommandError("; ".join(problems))


def _text(result: dict[str, Any], models: int) -> str:
    kernels, compiled = result["kernels"], result["compiled"]
    what = f"{kernels} kernels for {models} model{'s' if models > 1 else ''} ({result['isa']})"
    if not compiled:
        return f"{what}: all are there"
    return f"{what}: {compiled} compiled in {result['seconds']:.1f} s into {result['folder']}"


def _name(files: list[ModelFile], path: str) -> str:
    return next(file.name for file in files if str(file.path) == path)
