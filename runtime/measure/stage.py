"""A stage for single kernels: what the recorder records is run on the pool, and the clock is read."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from runtime.core import FloatArray
from runtime.execute.program import Row, table_of
from runtime.execute.recorder import Recorder
from runtime.execute.step import Limits
from runtime.kernels import cores
from runtime.kernels.driver import Driver
from runtime.kernels.kept import F16, GROUP, Kept
from runtime.kernels.leaves import Leaves
from runtime.kernels.pool import Pool
from runtime.weights import aligned_array

ROUNDS = 3  # the least of one measurement, if they take no longer than
PATIENCE = 3  # times what it was given
LONGEST_ROUNDS = 200
LONG = 0.005  # seconds of a run that finds nothing near that the one before has left
BLOCKS = 32  # of the cache, for a text of as many blocks
Record = Callable[[Recorder], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one run, over several."""

    usual: float  # the median; where a quota stops the threads now and then, of the time for which they ran
    fastest: float


class Stage:
    """`threads` threads and compiled leaves; `kept`: the type of keys and values."""

    def __init__(self, leaves: Leaves, threads: int, kept: Kept = F16) -> None:
        self.leaves, self.threads, self.kept = leaves, threads, kept
        self._pool = Pool(threads)
        stopped = threads > cores.granted()  # for a part of the time, which others may use, or not
        self._now = functools.partial(_ran, threads) if stopped else time.perf_counter

    @property
    def kept_share(self) -> float:
        """Bytes of keys and values over those that they have in 16 bits."""
        return self.kept.head_bytes(GROUP) / F16.head_bytes(GROUP)

    def close(self) -> None:
        """End the threads."""
        self._pool.close()

    def run(self, record: Record, rows: int, seconds: float, prepare: Record | None = None, *, single: bool = False) -> Times:
        """Record with `rows` activation rows and run that for about so many seconds. `prepare` may fill the recorder's step;
        `single`: see Pool.run. Weights are not laid out for it: these bytes are as good in any order (see memory.filled)."""
        recorder = self._recorded(record, rows, prepare)
        return self._time(recorder.table(), seconds, single=single)

    def parts(self, record: Record, rows: int, seconds: float, prepare: Record | None = None) -> dict[str, float]:
        """The same by what the rows of the Program are called (see Recorder.labels): seconds of one such row, on average over
        those of that name, as it mostly is."""
        recorder, times = self._recorded(record, rows, prepare), list[FloatArray]()
        program = recorder.table()
        counters = _counters(program)

        def once() -> float:
            begin = self._now()
            ticks = np.diff(self._pool.run_timed(program, counters))
            taken = self._now() - begin
            times.append((ticks * (taken / max(1, ticks.sum()))).astype(np.float32))
            return taken

        counted = np.array(times[-len(self._runs(once, seconds)) :])
        found: defaultdict[str, list[float]] = defaultdict(list)
        for label, taken in zip(recorder.labels, np.median(counted, 0).tolist(), strict=True):
            found[label].append(taken)
        return {label: statistics.fmean(each) for label, each in found.items()}

    def _recorded(self, record: Record, rows: int, prepare: Record | None) -> Recorder:
        limits = Limits(rows, 1, BLOCKS, BLOCKS, BLOCKS, lines=1)
        recorder = Recorder(self.leaves, self.threads, limits, self.leaves.strip_rows, self.kept)
        recorder.step.counts[:] = rows, 0
        record(recorder)
        if prepare is not None:
            prepare(recorder)
        return recorder

    def run_driver(self, kernel: Driver, arguments: npt.NDArray[np.int64], seconds: float) -> Times:
        """One driver by itself."""
        return self._time(table_of([Row(kernel, arguments)], self.leaves.cache), seconds)

    def _time(self, program: npt.NDArray[np.int64], seconds: float, *, single: bool = False) -> Times:
        counters = _counters(program)

        def once() -> float:
            begin = self._now()
            self._pool.run(program, counters, single)
            return self._now() - begin

        times = self._runs(once, seconds)
        return Times(statistics.median(times), min(times))

    @staticmethod
    def _runs(once: Callable[[], float], seconds: float) -> list[float]:
        """Seconds of each run that counts, for about so many together; only the first may not count."""
        warming = once()  # memory and caches are warm from here on
        times = [warming] if LONG < warming < seconds * PATIENCE else []  # and what takes longer was compiled in it, maybe
        while len(times) < LONGEST_ROUNDS and sum(times) < seconds * (PATIENCE if len(times) < ROUNDS else 1):
            times.append(once())
        return times


def _counters(program: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return aligned_array((len(program), 8), np.int64)


def _ran(threads: int) -> float:
    """Seconds for which this process has run on each of so many CPUs."""
    return time.process_time() / threads
