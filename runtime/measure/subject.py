"""A loaded model that is measured, on the CPU or with a card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from runtime.core import Batch, Executor
from runtime.frames import Load
from runtime.kernels import compile as kernel_compile
from runtime.kernels.leaves import Leaves
from runtime.loader import stays_in_file
from runtime.measure.memory import filled, read_speed
from runtime.measure.stage import Stage
from runtime.weights import Progress

PART_STEPS = 9  # steps over which parts are averaged
SHORTEST_BUFFER, LARGEST_BUFFER = 1 << 20, 1 << 30  # bytes that are read to find the limit


Token = Callable[[], Batch]  # another one at every call: experts that were just used are near


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """How to load. The last eight are those of frames.Load."""

    path: str
    num_ctx: int
    num_parallel: int
    num_thread: int
    num_gpu: int
    num_cpu_moe: int
    vram: int
    gpu_overhead: int
    pcie: bool
    memory: int = 0
    kv_cache_type: str = "f16"
    main_gpu: int = 0  # the only card that this process sees

    def mapped(self) -> bool:
        """Whether the weights stay in the file, as on a server with so little memory."""
        return stays_in_file(Load(self.path, memory=self.memory), Path(self.path).stat().st_size)


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """What reading alone would take. Bytes a second; 0: not read from there."""

    ram: float
    vram: float
    seconds: float  # of a token


class Subject(Protocol):
    """What the measurements need beside the executor itself."""

    backend: str
    threads: int
    bytes_per_token: int

    @property
    def executor(self) -> Executor:
        """The model."""

    def limit(self) -> Limit:
        """By plain reads in this run."""

    def parts(self, token: Token) -> dict[str, float]:
        """Seconds of a token by part."""


def ram_speed(leaves: Leaves, threads: int, nbytes: int, progress: Progress) -> float:
    """Bytes a second of a plain read of about so many bytes, by so many threads."""
    nbytes = min(max(nbytes, SHORTEST_BUFFER), LARGEST_BUFFER) // 4096 * 4096
    kernel_compile.ahead(leaves, (), progress, ("probes",))
    stage = Stage(leaves, threads)
    try:
        return read_speed(stage, filled(nbytes))
    finally:
        stage.close()


def options(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the arguments of a job say of how models are loaded; without them, what a server does by itself."""
    usual = {"num_gpu": -1, "num_cpu_moe": 0, "vram": 0, "gpu_overhead": 0, "pcie": True, "memory": 0, "kv_cache_type": "f16"}
    return {name: arguments.get(name, value) for name, value in usual.items()}
