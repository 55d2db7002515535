"""The job `warmup`: the kernels that models need on the CPU, compiled before anybody loads them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from runtime import models
from runtime.config import read_config
from runtime.core import ModelError
from runtime.execute import cpu, encoder
from runtime.gguf_file import GGUFError, open_gguf
from runtime.kernels import compile as kernel_compile
from runtime.kernels import kept
from runtime.kernels.leaves import Leaves
from runtime.weights import Progress, infos, metadata, tensor_at


def warmup(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Arguments: paths of GGUF files, kv_cache_type. Only their headers are read.

    Result: the tier, the folder ("": none can be written, so nothing was compiled), how many kernels the files need, how many
    of them were compiled now, in how many seconds, and by path why a file was left out.
    """
    leaves, begin = Leaves(), time.perf_counter()
    wanted, failed = dict[str, None](), dict[str, str]()
    for path in arguments["paths"]:
        try:
            wanted |= dict.fromkeys(_kernels(leaves, Path(path), arguments["kv_cache_type"]))
        except (GGUFError, ModelError, OSError) as error:
            failed[path] = str(error)
    return {
        "isa": leaves.tier,
        "folder": str(leaves.cache.folder or ""),
        "kernels": len(wanted),
        "compiled": kernel_compile.keep(leaves, wanted, progress),
        "seconds": time.perf_counter() - begin,
        "failed": failed,
    }


def _kernels(leaves: Leaves, path: Path, kv_cache_type: str) -> list[str]:
    """Names of those that the model of a file needs."""
    with open_gguf(path) as file:
        config = read_config(*metadata(file))
        if config.architecture not in models.ARCHITECTURES:
            raise ModelError(f"unknown model architecture: {config.architecture!r}")
        tensors = [tensor_at(0, info) for info in infos(file)]
    if config.pooling_type is not None:
        return encoder.kernels(leaves, tensors)
    return cpu.kernels(leaves, tensors, kept.chosen(kv_cache_type, config.key_length, config.value_length))
