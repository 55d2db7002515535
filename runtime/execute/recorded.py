"""A recorded forward pass, or a part of one, on a thread pool of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtime.core import Batch, FloatArray
from runtime.execute.recorder import Recorder
from runtime.execute.step import Value, view
from runtime.kernels.pool import Pool
from runtime.weights import aligned_array


class Recorded:
    """`recorder` after its last row, and `out`, what the pass computes. Weights are laid out for the kernels here.

    `result`: the rows of `out`, (limit, width); those of a pass hold until the next one.
    """

    def __init__(self, recorder: Recorder, out: Value, threads: int) -> None:
        self.recorder, self.out = recorder, out
        self.result: FloatArray = view(out, out.limit)
        self._pool = Pool(threads, lasting=True)
        self._program = recorder.table()
        layout = recorder.layout()
        self._counters: npt.NDArray[np.int64] = aligned_array((max(len(self._program), len(layout)), 8), np.int64)
        if len(layout):
            self._pool.run(layout, self._counters)

    def run(self, batch: Batch) -> None:
        """One pass."""
        self._enter(batch)
        self._pool.run(self._program, self._counters, single=len(batch.tokens) == 1)

    def timed(self, batch: Batch) -> list[tuple[str, float]]:
        """One pass, and for each row of the Program its label (see Recorder) and its share of the time."""
        self._enter(batch)
        times = np.diff(self._pool.run_timed(self._program, self._counters, single=len(batch.tokens) == 1))
        return list(zip(self.recorder.labels, (times / max(1, times.sum())).tolist(), strict=True))

    def _enter(self, batch: Batch) -> None:
        """Write a batch where the kernels read it."""
        step, rows, outputs = self.recorder.step, len(batch.tokens), len(batch.outputs)
        assert 0 < rows <= len(step.tokens)
        assert outputs <= len(step.outputs)
        assert batch.tables.shape[1] <= step.tables.shape[1]
        step.counts[:] = rows, outputs
        step.tokens[:rows] = batch.tokens
        step.positions[:rows] = batch.positions
        step.sequences[:rows] = batch.sequences
        step.tables[: len(batch.tables), : batch.tables.shape[1]] = batch.tables
        step.outputs[:outputs] = batch.outputs

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks of the cache, (from, to), on every layer that was recorded."""
        for cache in self.recorder.caches:
            for source, target in pairs:
                cache.keys[target] = cache.keys[source]
                cache.values[target] = cache.values[source]

    def copy_states(self, pairs: list[tuple[int, int]]) -> None:
        """Copy states of texts, (from, to), on every layer that was recorded."""
        for state in self.recorder.states:
            for source, target in pairs:
                state.copy(source, target)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()
