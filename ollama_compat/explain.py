"""Where a model lies, or would lie, on a machine with a card, in words."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

from ollama_compat import call, job_steps, options
from ollama_compat.errors import InternalError
from ollama_compat.resident import load_request
from ollama_compat.services import Services
from ollama_compat.store import StoredModel

_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0"), Path("/usr/lib/wsl/lib/libcuda.so.1"))


async def placement(services: Services, stored: StoredModel) -> str:
    """The plan that the model was loaded by, or that a load would make now; "" where there is no NVIDIA driver, or no plan."""
    if stored.model_path is None or not any(path.exists() for path in _DRIVER):
        return ""
    for resident in services.residency.list():
        if resident.wanted.path == str(stored.model_path):
            return resident.loaded.placement
    request = load_request(call.wanted(stored, options.merge(stored.params, None)), services.settings)
    try:
        return await asyncio.to_thread(_planned, dataclasses.asdict(request))
    except InternalError:  # a model that cannot be loaded has none
        return ""


def _planned(request: dict[str, Any]) -> str:
    steps = job_steps.steps("placement", request)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return str(end.value["placement"])
