"""A model with its attention on a card, measured."""

from __future__ import annotations

import statistics
import time

from runtime.core import Batch
from runtime.execute import hybrid
from runtime.execute.cards import Choice
from runtime.execute.hybrid import HybridExecutor
from runtime.frames import Load
from runtime.kernels import jit
from runtime.kernels.leaves import Leaves
from runtime.measure import card_parts, gpu, parts
from runtime.measure.subject import PART_STEPS, Limit, Token, Wanted, ram_speed
from runtime.weights import Progress


class OnCard:
    """Implements Subject."""

    def __init__(self, executor: HybridExecutor, progress: Progress) -> None:
        self.executor = executor
        self._progress = progress
        self.threads, self.bytes_per_token = executor.threads, executor.bytes_per_token
        self.backend = f"CUDA, CPU {jit.TIER.name}" if executor.ram_bytes_per_token else "CUDA"

    def limit(self) -> Limit:
        """What is in VRAM at its speed, and the rest at that of RAM, one after the other as the layers are."""
        vram = gpu.memory_speed()
        there = self.executor.ram_bytes_per_token
        ram = ram_speed(Leaves(), self.threads, there, self._progress) if there else 0.0
        seconds = (self.bytes_per_token - there) / vram + (there / ram if there else 0.0)
        return Limit(ram, vram, seconds)

    def parts(self, token: Token) -> dict[str, float]:
        """By the card's kernels, and what of its waiting is the CPU's computing."""
        run = self.executor
        kernels = card_parts.kernels(run, token)
        computing = run.watch_experts(PART_STEPS, lambda: run.forward(token()))
        whole = statistics.median(self._seconds(token()) for _ in range(PART_STEPS))
        return parts.of_card(kernels, whole, computing, run.front_rows(token()), over_pcie=run.over_pcie > 0)

    def _seconds(self, batch: Batch) -> float:
        begin = time.perf_counter()
        self.executor.forward(batch)
        return time.perf_counter() - begin


def load(wanted: Wanted, progress: Progress, *, resident: int | None = None, over_pcie: float | None = None) -> OnCard | None:
    """As a server would place it; None where the card cannot be used. `resident`, `over_pcie`: see hybrid.load."""
    request = Load(
        wanted.path,
        num_ctx=wanted.num_ctx,
        num_parallel=wanted.num_parallel,
        num_batch=0,
        num_thread=wanted.num_thread,
        num_gpu=wanted.num_gpu,
        main_gpu=wanted.main_gpu,
        num_cpu_moe=wanted.num_cpu_moe,
        vram=wanted.vram,
        gpu_overhead=wanted.gpu_overhead,
        pcie=wanted.pcie,
        kv_cache_type=wanted.kv_cache_type,
    )
    card = Choice(wanted.main_gpu, 0)
    executor = hybrid.load(request, progress, mapped=wanted.mapped(), resident=resident, over_pcie=over_pcie, card=card)
    return OnCard(executor, progress) if executor else None
