"""A model on the CPU, measured."""

from __future__ import annotations

import statistics
import time

from runtime.core import Batch
from runtime.execute import cpu
from runtime.kernels import jit
from runtime.measure import parts
from runtime.measure.subject import PART_STEPS, Limit, Token, Wanted, ram_speed
from runtime.weights import Progress

ROWS = 512  # of a step


class OnCpu:
    """Implements Subject."""

    def __init__(self, wanted: Wanted, progress: Progress) -> None:
        self.executor = cpu.load(
            wanted.path,
            num_ctx=wanted.num_ctx,
            num_parallel=wanted.num_parallel,
            num_batch=ROWS,
            num_thread=wanted.num_thread,
            kv_cache_type=wanted.kv_cache_type,
            mapped=wanted.mapped(),
            progress=progress,
        )
        self._progress = progress
        self.backend = f"CPU {jit.TIER.name}"
        self.threads, self.bytes_per_token = self.executor.threads, self.executor.bytes_per_token

    def limit(self) -> Limit:
        """As many bytes as a token needs, by as many threads."""
        speed = ram_speed(self.executor.leaves, self.threads, self.bytes_per_token, self._progress)
        return Limit(speed, 0.0, self.bytes_per_token / speed)

    def parts(self, token: Token) -> dict[str, float]:
        """By the rows of the Program."""
        timed = [parts.shares(self.executor.timed(token())) for _ in range(PART_STEPS)]
        whole = statistics.median(self._seconds(token()) for _ in range(PART_STEPS))
        names = {name for shares in timed for name in shares}
        return {name: whole * statistics.median(shares.get(name, 0.0) for shares in timed) for name in names}

    def _seconds(self, batch: Batch) -> float:
        begin = time.perf_counter()
        self.executor.forward(batch)
        return time.perf_counter() - begin
