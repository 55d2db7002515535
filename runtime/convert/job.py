"""The job `convert`: what its arguments mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.convert import adapter, file
from runtime.weights import Progress


def convert(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Write the checkpoint `files`, names in its folder and paths, to `target`, a file that is there, as GGUF.

    `type`: of the matrices, "F32", "F16" or "BF16"; "" leaves them their own.
    """
    files = {name: Path(path) for name, path in arguments["files"].items()}
    with open(arguments["target"], "r+b", buffering=1 << 20) as target:
        file.convert(files, target, lambda done, total: progress("converting", done, total), arguments["type"])
    return {}


def convert_adapter(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Write the LoRA adapter `files` for the model `base`, a GGUF file, to `target` as GGUF."""
    files = {name: Path(path) for name, path in arguments["files"].items()}
    with open(arguments["target"], "r+b") as target:
        adapter.convert_adapter(files, Path(arguments["base"]), target, lambda done, total: progress("converting", done, total))
    return {}
