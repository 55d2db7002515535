"""What F32, F16 and BF16 share: one value a block, float activations, four running sums in a fixed order."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.quants.base import LeafType, Value

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter

VECTORS = 4  # running sums: as many as hide the latency of an FMA


class FloatType(LeafType):
    """Sums: four vectors, and one scalar for the values after the last whole vector."""

    block_size = 1
    activation = "f32"
    sums = VECTORS

    @abc.abstractmethod
    def emit_load(self, e: Emitter, w: Value, offset: int, count: int) -> Value:
        """`count` values at byte `offset` as f32: a vector, or a scalar for 1."""

    def steps(self, e: Emitter) -> Sequence[int]:
        return (VECTORS * e.lanes, e.lanes, 1)

    def start(self, e: Emitter) -> list[Value]:
        return [e.zero(e.floats(e.lanes))] * VECTORS + [e.zero(e.F32)]

    def emit_dot(self, e: Emitter, w: Value, xs: Sequence[Value], sums: Sequence[list[Value]], count: int) -> list[list[Value]]:
        width = min(count, e.lanes)
        kind = e.F32 if count == 1 else e.floats(width)
        totals = [list(column) for column in sums]
        for k in range(count // width):
            values = self.emit_load(e, w, k * width * self.block_bytes, width)
            slot = VECTORS if count == 1 else k
            for column, x in zip(totals, xs, strict=True):
                column[slot] = e.fma(values, e.load(x, 4 * k * width, kind), column[slot])
        return totals

    def finish(self, e: Emitter, sums: list[Value]) -> Value:
        first, second, third, fourth, rest = sums
        return e.add(e.sum(e.add(e.add(first, second), e.add(third, fourth))), rest)

    def emit_dequantize(self, e: Emitter, w: Value, out: Value, count: int) -> None:
        width = min(count, e.lanes)
        for k in range(count // width):
            e.store(self.emit_load(e, w, k * width * self.block_bytes, width), out, 4 * k * width)
