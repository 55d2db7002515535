"""Blocks of sixteen rows with codebooks taken apart side by side, a lane of 32 bits for each row: see `runtime.quants.unpacked`.

Only on tiers that look entries up in registers: what is found there lies in strips already, and nothing has to be interleaved.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from runtime.quants.base import Value

if TYPE_CHECKING:
    from runtime.kernels.vbmi import Avx512Vbmi

RUN = 32  # bytes of a block that are loaded at a time


class Rows:
    """A block of each of sixteen rows as a file has them: bytes of all rows in one register."""

    def __init__(self, e: Avx512Vbmi, rows: Sequence[Value], runs: Sequence[int]) -> None:
        self._dwords: dict[int, Value] = {}
        for firsts in zip(runs[::2], runs[1::2], strict=True):
            vectors = [e.concat(*(e.load(row, first, e.vector(e.I32, 8)) for first in firsts)) for row in rows]
            places = [place for first in firsts for place in range(first, first + RUN, 4)]
            self._dwords = dict(zip(places, e.transposed(vectors), strict=True)) | self._dwords

    def dwords(self, offset: int) -> Value:
        """The four bytes of each row's block from `offset` on, <16 x i32>; one of those that the type's `RUNS` begin."""
        return self._dwords[offset]


class Laned(abc.ABC):
    """A type whose blocks can be taken apart so. Registers of bytes have four of each row."""

    RUNS: tuple[int, ...]
    """Where the runs of RUN bytes begin that hold all but the block's factor; an even number."""

    @abc.abstractmethod
    def levels(self) -> list[list[int]]:
        """The codebook: 8 or 4 levels an entry."""

    @abc.abstractmethod
    def lane_weight(self, level: int, flag: int) -> int:
        """The weight of a level whose flag is 0 or 1."""

    @abc.abstractmethod
    def emit_lane_indices(self, e: Avx512Vbmi, rows: Rows) -> Iterator[tuple[Value, ...]]:
        """Four indices at a time: bytes, and of a larger codebook others whose lowest bits are the upper ones."""

    @abc.abstractmethod
    def emit_lane_flags(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        """The flags of 32 weights each, <16 x i32>, the lowest bit first."""

    @abc.abstractmethod
    def emit_lane_scales(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        """The scales of sixteen groups, <64 x i8>."""


def emit_lane_odd(e: Avx512Vbmi, dwords: Value, firsts: Sequence[int], width: int) -> Value:
    """2 q + 1 for four fields q of each row, of `width` bits from `firsts` on."""
    return e.bor(e.band(e.lane_fields(dwords, [first - 1 for first in firsts]), 2 * (1 << width) - 2), 1)


def emit_lane_nibbles(e: Avx512Vbmi, rows: Rows, offset: int) -> list[Value]:
    """2 q + 1 for the sixteen nibbles q at `offset`."""
    return [emit_lane_odd(e, rows.dwords(offset + 4 * (j // 2)), range(16 * (j % 2), 16 * (j % 2) + 16, 4), 4) for j in range(4)]
