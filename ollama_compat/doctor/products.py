"""What multiplying weights by rows of activations costs on the CPU, from what the machine's kernels took.

Leaves take 1, 2, 4 or 8 rows ("columns") at a time, and those that multiply in tiles any number from 9 to 64. Each such pass over
the weights costs what the cores need for it; the first one also waits until the weights have come from where they lie.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

WIDEST = 8  # columns of the widest leaf without tiles
TILE, MOST = 16, 64  # columns of a tile, and of the widest leaf with them
TILED = 1.5  # sixteen columns take less than so many times what eight take: they are multiplied in tiles
SHORT, LONG = 512, 2048  # values of the rows by which it was measured from memory
CORES = {1: "cache", 2: "cache_two", 4: "cache_four"}  # by columns: the rate of a pass over weights in the core's own cache


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """Weights of one type. `rate`: a TypeRate (see runtime.measure.rates); `values`: of a byte; `spilled`: the part of them that
    the last cache does not hold; `scattered`: as experts that are chosen anew; `bandwidth`: by how much the memory is faster than
    it was measured;
    `short`: seconds a byte and column that short rows cost more; `least`: what those of a pass of the widest leaf take at the
    least; `width`: values of a row."""

    rate: Mapping[str, float]
    values: float
    spilled: float = 1.0
    scattered: bool = False
    bandwidth: float = 1.0
    short: float = 0.0
    least: float = 0.0
    width: float = 0.0

    def seconds(self, columns: int) -> float:
        """Of a byte, multiplied by so many rows."""
        passes = _passes(columns, tiled=self._tiled)
        return self._first(passes[0]) + sum(map(self._core, passes[1:])) if passes else 0.0

    def expected(self, rows: int, share: float) -> float:
        """Of a byte of all experts, where each of `rows` chooses that share of them, all as likely."""
        if share >= 1.0:
            return self.seconds(rows)
        logs = math.log(share), math.log1p(-share)
        return sum(_chance(n, rows, logs) * self.seconds(n) for n in range(1, rows + 1))

    def _core(self, columns: int) -> float:
        """Of a pass over weights that are there."""
        if columns < WIDEST:
            return self.rate[CORES[columns]] + columns * self.short
        if self._tiled:
            long = self._in_tiles(math.ceil(columns / TILE)) if columns > WIDEST else self.rate["cache_eight"]
            return max(long + columns * self.short, columns * self.least)
        return WIDEST * max(2 * self.values * self.rate["prompt"] + self.short, self.least)

    @property
    def _tiled(self) -> bool:
        return self.rate["cache_sixteen"] < TILED * self.rate["cache_eight"]

    def _in_tiles(self, tiles: int) -> float:
        """Of so many tiles of columns: weights are made tiles once for all of a pass, and those of prompts are full."""
        one, full = self.rate["cache_sixteen"], MOST * 2 * self.values * self.rate["prompt"]
        more = max(0.0, (full - one) / (MOST // TILE - 1))
        return one + (tiles - 1) * more

    def _first(self, columns: int) -> float:
        """Of the pass that the weights come for."""
        more = self._wide(columns) - self.rate["memory"] if columns >= 4 else 0.0
        far = (self.rate["scattered" if self.scattered else "memory"] + more) / self.bandwidth
        coming = (1 - self.spilled) * self.rate["last_cache"] + self.spilled * far
        return max(coming, self._core(columns))

    def _wide(self, columns: int) -> float:
        """Of a pass over weights from memory: by how long rows are, which is what the first cache has to hold of activations.
        Experts, whose pieces change, were not seen to wait longer for eight rows than for four."""
        if columns < WIDEST or self.scattered:
            return self.rate["memory_four"]
        short, long = self.rate["memory_eight_short"], self.rate["memory_eight"]
        part = (min(max(self.width, SHORT), LONG) - SHORT) / (LONG - SHORT)
        return short + part * (long - short)


def _passes(columns: int, *, tiled: bool = False) -> list[int]:
    """Columns of each pass, the widest first; three and seven take one of four and of eight (see runtime.kernels.matmul.fill)."""
    if tiled and columns > WIDEST:
        rest = columns % MOST
        return [MOST] * (columns // MOST) + ([rest] if rest > WIDEST else _passes(rest))
    columns += columns % 4 == 3
    return [WIDEST] * (columns // WIDEST) + [width for width in (4, 2, 1) if columns & width]


def _chance(n: int, of: int, logs: tuple[float, float]) -> float:
    """That n of so many choose the same, by the logarithms of their chances to do so and not to."""
    ways = math.lgamma(of + 1) - math.lgamma(n + 1) - math.lgamma(of - n + 1)
    return math.exp(ways + n * logs[0] + (of - n) * logs[1])
