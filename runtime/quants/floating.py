"""What F32, F16 and BF16 share: one value a block, float activations, four running sums in a fixed order."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from runtime.quants.base import Value
from runtime.quants.strips import Strip, StripType

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter

VECTORS = 4  # running sums: as many as hide the latency of an FMA
PARTS = 2  # running sums of a strip and column
TOGETHER = 2  # strips that few columns are multiplied with at a time, so that they share the loads of an input


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

    def strips_together(self, columns: int, e: StripEmitter) -> int:
        if columns == 1 and e.registers == 32:  # loads of inputs are no limit there, and one stream is read fastest
            return 1
        return TOGETHER if TOGETHER * PARTS * columns <= e.registers else 1

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        return self._emit_strips(e, [w], xs, sums)

    def emit_strips(self, e: StripEmitter, strips: Sequence[Strip], xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        if len(xs) == 1:  # memory is sooner read strip by strip
            return super().emit_strips(e, strips, xs, sums)
        return self._emit_strips(e, strips, xs, sums)

    def _emit_strips(self, e: StripEmitter, strips: Sequence[Strip], xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        parts = [[e.zero(total.type) for total in sums] for _ in range(PARTS)]
        turns = self._turns(len(sums), e.registers)
        for turn in turns:
            for k, values in enumerate(zip(*(self.strip_walk(e, w) for w in strips), strict=True)):
                if k % PARTS in turn:
                    parts[k % PARTS] = self._with_products(e, k, values, xs, parts[k % PARTS])
            if turn is not turns[-1]:
                xs = self._waiting(e, strips, xs, parts[turn[-1]][-1])
        return [e.add(total, e.add(*part)) for total, *part in zip(sums, *parts, strict=True)]

    @staticmethod
    def _waiting(e: StripEmitter, strips: Sequence[Strip], xs: Sequence[Value], value: Value) -> list[Value]:
        """Let nothing more be loaded before `value` is there."""
        for w in strips:
            w.wait(value)
        return [e.after(x, value) for x in xs]

    @staticmethod
    def _turns(sums: int, registers: int) -> list[Sequence[int]]:
        """The parts, one after the other where not all have room in registers."""
        everything = range(PARTS)
        return [[part] for part in everything] if 4 * PARTS * sums > 3 * registers else [everything]

    def _with_products(
        self, e: StripEmitter, k: int, values: Sequence[Value], xs: Sequence[Value], sums: Sequence[Value]
    ) -> list[Value]:
        """`sums` with the products of value k of each strip and column."""
        inputs = [self.strip_input(e, x, k) for x in xs]
        pairs = itertools.product(values, inputs)
        return [self.strip_product(e, *pair, total) for pair, total in zip(pairs, sums, strict=True)]

    def strip_walk(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        """The operands of `strip_product`, one after the other."""
        return w.paced(self.strip_values(e, w), w.count * self.strip_blocks)

    def strip_input(self, e: StripEmitter, x: Value, k: int) -> Value:
        """What the k-th of them is multiplied with, in every lane."""
        return e.load_splat(x, 4 * k, e.F32, e.lanes)

    def strip_product(self, e: StripEmitter, values: Value, inputs: Value, total: Value) -> Value:
        return e.fma(values, inputs, total)

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
