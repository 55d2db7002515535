"""Medians, spreads, and how sure a ratio of two medians is."""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Sequence

RESAMPLES = 4000
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """Of some samples."""

    median: float
    low: float
    high: float
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class Ratio:
    """One median over another, and the interval in which it lies with CONFIDENCE."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.low > 1 or self.high < 1


def spread(samples: Sequence[float]) -> Spread:
    """`samples`: at least one."""
    return Spread(statistics.median(samples), min(samples), max(samples), len(samples))


def ratio(mine: Sequence[float], theirs: Sequence[float], *, smaller_is_better: bool = False, seed: int = 0) -> Ratio:
    """How many times as good `mine` is: the ratio of the medians, its interval by the percentile bootstrap.

    Positive samples, at least one on each side. Both sides are drawn again independently, so a sample should be a whole turn:
    what one turn has in common must not count as several proofs.
    """
    if smaller_is_better:
        mine, theirs = theirs, mine
    draw = random.Random(seed)
    values = sorted(
        statistics.median(draw.choices(mine, k=len(mine))) / statistics.median(draw.choices(theirs, k=len(theirs)))
        for _ in range(RESAMPLES)
    )
    tail = (1 - CONFIDENCE) / 2
    return Ratio(
        statistics.median(mine) / statistics.median(theirs),
        values[int(tail * RESAMPLES)],
        values[min(RESAMPLES - 1, int((1 - tail) * RESAMPLES))],
    )


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    """Of two vectors of the same length, neither zero."""
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    return float(dot / (sum(a * a for a in left) * sum(b * b for b in right)) ** 0.5)
