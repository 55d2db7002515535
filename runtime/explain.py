"""The job `placement`: what a load of a model would do on this machine, in words. Of the file only the header and small tensors
are read."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from runtime import models
from runtime.execute.budget import DEFAULT_CONTEXT
from runtime.execute.needs import planned
from runtime.execute.placement import NoRoom, wants_gpu
from runtime.frames import Load
from runtime.weights import Progress, Weights, open_weights

_NVML = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")


def placement(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Arguments: the fields of frames.Load. Result: `placement`."""
    request = Load(**arguments)
    weights = open_weights(request.path, progress, mapped=True)
    try:
        return {"placement": _words(request, weights)}
    finally:
        weights.close()


def _words(request: Load, weights: Weights) -> str:
    model = models.build(weights)
    on_cpu = f"{len(model.blk)} layers on the CPU ({weights.nbytes / 2**20:.0f} MiB)"
    if request.adapters or not wants_gpu(request.num_gpu, request.embedding, Path(request.path).stat().st_size):
        return on_cpu
    free = free_vram(request.main_gpu or 0)
    if free is None:
        return on_cpu
    num_ctx = min(request.num_ctx or DEFAULT_CONTEXT, model.config.context_length)
    vram = min(max(0, free - request.gpu_overhead), request.vram or free)
    try:
        return planned(weights, model, request, num_ctx, vram, None)[0].words
    except NoRoom as error:
        return f"{on_cpu}: GPU {request.main_gpu or 0} cannot be used, {error}"


class _Memory(ctypes.Structure):
    """nvmlMemory_t of nvml.h."""

    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


def free_vram(card: int) -> int | None:
    """Bytes that are free on a card, asked without making a context on it; None where the driver's library does not say."""
    for name in _NVML:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        device, memory = ctypes.c_void_p(), _Memory()
        told = library.nvmlInit_v2() == 0
        told = told and library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(card), ctypes.byref(device)) == 0
        told = told and library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0
        return int(memory.free) if told else None
    return None
