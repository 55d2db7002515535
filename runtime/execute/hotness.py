"""Which experts are worth a place in VRAM: a pure policy over counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

HALF_LIFE = 128  # tokens after which a use counts half
TWICE = 1.2  # of the score: one use alone is none yet, the second within a while is
MARGIN = 2.0  # by how much a newcomer must be hotter than the one it replaces: else chance alone moves experts about
EVEN = 1.0  # and by how much at least, where both are cold
READ = 2  # experts read from RAM for each one that moves, which reads RAM too
ABSENT = 16  # absent experts for each one that moves at a time: until all copies have arrived their places are of no use

Counts = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]


class Move(NamedTuple):
    """`expert` of `layer` takes the place of `victim`."""

    layer: int
    expert: int
    victim: int


class Budget:
    """What moves may cost where the text changes: over time one for READ experts that were missed, and at a time one in ABSENT
    of those that have no place. Chance moves few in any case, because of MARGIN."""

    def __init__(self) -> None:
        self._missed = 0

    def see(self, missed: int, absent: int) -> None:
        """Steps have missed so many; `absent`: that have no place. A prompt may let all of these move, but no more."""
        self._missed = min(self._missed + missed, READ * absent)

    def most(self, absent: int) -> int:
        """How many may move now."""
        return min(self._missed // READ, max(1, absent // ABSENT))

    def spend(self, moves: int) -> None:
        """So many move."""
        self._missed -= READ * moves


class Hotness:
    """Uses of each expert, of which old ones count less: between the least recently and the least frequently used (LRFU)."""

    def __init__(self, layers: int, experts: int) -> None:
        self._score = np.zeros((layers, experts))

    def see(self, counts: Counts, rows: int) -> None:
        """Steps of so many rows in all have used the experts so often, (layers, experts)."""
        if rows == 0:
            return
        keep = 0.5 ** (1 / HALF_LIFE)
        after = keep**rows
        self._score *= after
        self._score += counts * ((1 - after) / (rows * (1 - keep)))  # as if each use were spread over the rows

    def moves(self, resident: Mask, most: int) -> list[Move]:
        """At most so many moves, those that gain most first; `resident`: (layers, experts)."""
        absent = np.where(resident, -1.0, self._score)
        present = np.where(resident, self._score, np.inf)
        layers = np.flatnonzero(_gain(absent.max(1), present.min(1)) >= EVEN)  # mostly few
        hot = np.argsort(-absent[layers], 1, kind="stable")
        cold = np.argsort(present[layers], 1, kind="stable")
        gain = _gain(np.take_along_axis(absent[layers], hot, 1), np.take_along_axis(present[layers], cold, 1))
        best = np.argsort(-gain, None, kind="stable")[: min(most, int((gain >= EVEN).sum()))]
        rows, places = np.unravel_index(best, gain.shape)
        return [Move(int(layers[i]), int(hot[i, j]), int(cold[i, j])) for i, j in zip(rows, places, strict=True)]


def _gain(hot: Scores, cold: Scores) -> Scores:
    """What it brings that `hot` takes the place of `cold`, both scores."""
    gain: Scores = np.where(hot >= TWICE, hot - MARGIN * cold, 0.0)
    return gain
