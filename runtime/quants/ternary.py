"""What TQ1_0 and TQ2_0 share: values of -1, 0 and 1 (TQ2_0: and 2) times one scale."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from runtime.quants.activations import Q8K
from runtime.quants.base import Value
from runtime.quants.offset_block import OffsetBlockType
from runtime.quants.strips import Strip, StripType
from runtime.quants.super_block import add_strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class TernaryType(OffsetBlockType, StripType):
    """value = d * (q - 1), d an f16 at D; the quants are at most 3."""

    OFFSET = 1
    D: int

    def unit(self, e: StripEmitter) -> int:
        """How many times the sums of a strip are taken, a power of two, so that not all quants have to go to the lowest bits."""
        return 1

    @abc.abstractmethod
    def strip_quants(self, e: StripEmitter, w: Strip) -> Iterator[tuple[Iterator[Value], list[int], int]]:
        """Some quants of every row, <4 lanes x i8> each, times a divisor of `unit`, which inputs they meet, and that divisor."""

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.load_half(w, self.D, count)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        return e.constant(e.bytes(16), 1)

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        unit = self.unit(e)
        ones = e.constant(e.vector(e.I16, 16), self.OFFSET * unit)
        minus = [e.sum(e.madd16(e.load(x, Q8K.SUMS, ones.type), ones)) for x in xs]  # what the offset is worth
        totals = [e.splat(total, e.lanes) for total in minus]
        for quants, inputs, times in self.strip_quants(e, w):
            totals = e.strip_dot(totals, w.paced(quants), xs, inputs, e.strip_ones(unit // times), 3 * times, w.wait)
        d = w.half(self.D) if unit == 1 else e.mul(w.half(self.D), 1 / unit)
        return add_strip(e, xs, [e.mul(e.float(total), d) for total in totals], sums)
