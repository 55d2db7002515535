"""What F32, F16 and BF16 share: one value a block, float activations, four running sums in a fixed order."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from runtime.quants.base import Value
from runtime.quants.strips import Strip, StripType

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter

VECTORS = 4  # running sums: as many as hide the latency of an FMA
PARTS = 2  # running sums of a strip and column
TOGETHER = 2  # strips that one column is multiplied with at a time


class FloatType(StripType):
    """Sums: four vectors, and one scalar for the values after the last whole vector. In strips one vector; to it are
    added the products of some values each, which PARTS vectors take in turn."""

    block_size = 1
    activation = "f32"
    sums = VECTORS
    strip_steps = (16, 1)
    widest = 4
    streamed = False

    @abc.abstractmethod
    def emit_load(self, e: Emitter, w: Value, offset: int, count: int) -> Value:
        """`count` values at byte `offset` as f32: a vector, or a scalar for 1."""

    def emit_input(self, e: Emitter, x: Value, first: int, count: int) -> Value:
        """Activations [first, first + count) as f32."""
        return e.load(x, 4 * first, e.F32 if count == 1 else e.floats(count))

    def steps(self, e: Emitter, columns: int = 0) -> Sequence[int]:
        return (VECTORS * e.lanes, e.lanes, 1)

    def start(self, e: Emitter) -> list[Value]:
        return [e.zero(e.floats(e.lanes))] * VECTORS + [e.zero(e.F32)]

    def emit_dot(self, e: Emitter, w: Value, xs: Sequence[Value], sums: Sequence[list[Value]], count: int) -> list[list[Value]]:
        width = min(count, e.lanes)
        totals = [list(column) for column in sums]
        for k in range(count // width):
            values = self.emit_load(e, w, k * width * self.block_bytes, width)
            slot = VECTORS if count == 1 else k
            for column, x in zip(totals, xs, strict=True):
                column[slot] = e.fma(values, self.emit_input(e, x, k * width, width), column[slot])
        return totals

    def strips_together(self, columns: int) -> int:
        return max(1, TOGETHER // columns)

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        parts = [[e.zero(total.type)] * PARTS for total in sums]
        self.emit_parts(e, w, xs, parts)
        return [e.add(total, e.add(*part)) for total, part in zip(sums, parts, strict=True)]

    def emit_parts(self, e: StripEmitter, w: Strip, xs: list[Value], parts: list[list[Value]]) -> None:
        """Add a strip's products to `parts`, PARTS sums for each column, in turn."""
        for k, values in enumerate(w.paced(self.strip_values(e, w), w.count * self.strip_blocks)):
            for part, x in zip(parts, xs, strict=True):
                part[k % PARTS] = e.fma(values, e.load_splat(x, 4 * k, e.F32, e.lanes), part[k % PARTS])

    @abc.abstractmethod
    def strip_values(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        """One value of every row after the other, as f32."""

    def finish(self, e: Emitter, sums: list[Value]) -> Value:
        first, second, third, fourth, rest = sums
        return e.add(e.sum(e.add(e.add(first, second), e.add(third, fourth))), rest)

    def emit_dequantize(self, e: Emitter, w: Value, out: Value, count: int) -> None:
        width = min(count, e.lanes)
        for k in range(count // width):
            e.store(self.emit_load(e, w, k * width * self.block_bytes, width), out, 4 * k * width)
