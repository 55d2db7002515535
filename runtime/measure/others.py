"""What other programs take of the CPUs that this process may use, as the system counts it."""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # a second
_IDLE = 3, 4  # of the columns behind a CPU's name: idle, and idle while a disk works (proc_stat(5))
_COUNTED = 8  # columns; guests are counted twice behind them


class Others:
    """The cores that others have, from when this is made. `root`: where proc is."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._begin = self._now()

    def cores(self) -> float | None:
        """How many they had on average until now; None where the system does not tell."""
        end = self._now()
        if self._begin is None or end is None:
            return None
        busy, own, clock = (after - before for before, after in zip(self._begin, end, strict=True))
        return max(0.0, busy - own) / clock if clock > 0 else 0.0

    def _now(self) -> tuple[float, float, float] | None:
        """Seconds that our CPUs have been busy, that this process used of that, and the time."""
        try:
            lines = (self._root / "proc/stat").read_text().splitlines()
        except OSError:
            return None
        ours = {f"cpu{cpu}" for cpu in os.sched_getaffinity(0)}
        busy = sum(_busy(counts) for name, *counts in map(str.split, lines) if name in ours)
        return busy / _TICKS, time.process_time(), time.perf_counter()


def _busy(counts: list[str]) -> int:
    """Ticks of a CPU's columns."""
    return sum(int(count) for column, count in enumerate(counts[:_COUNTED]) if column not in _IDLE)
