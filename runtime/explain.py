"""The job `placement`: what a load of a model would do on this machine, in words. Of the file only the header and small tensors
are read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from runtime import models
from runtime.execute import cards
from runtime.execute.budget import DEFAULT_CONTEXT
from runtime.execute.needs import planned
from runtime.execute.placement import NoRoom, wants_gpu
from runtime.frames import Load
from runtime.weights import Progress, Weights, open_weights


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
    there = cards.known()
    if not there:
        return on_cpu
    gpu = cards.roomiest(there) if request.main_gpu is None else request.main_gpu
    if gpu >= len(there):
        return f"{on_cpu}: GPU {gpu} cannot be used, there is no such card, but {len(there)}"
    free, request = there[gpu].free, dataclasses.replace(request, main_gpu=gpu)
    num_ctx = min(request.num_ctx or DEFAULT_CONTEXT, model.config.context_length)
    vram = min(max(0, free - request.gpu_overhead), request.vram or free)
    try:
        return planned(weights, model, request, num_ctx, vram, None)[0].words
    except NoRoom as error:
        return f"{on_cpu}: GPU {gpu} cannot be used, {error}"
