"""What the types with blocks of 32 values and one scale share (Q8_0, Q4_0, Q5_0, IQ4_NL, MXFP4)."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from runtime.quants.activations import Q80
from runtime.quants.base import Value
from runtime.quants.strips import Strip, StripType

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter

LANES = 8  # 32 products, four to a lane


class SmallBlockType(StripType):
    """value = d * integer; d is an f16, first in the block, where `emit_scale` says nothing else.

    Two running sums, for even and odd blocks.
    """

    block_size = 32
    activation = "q8_0"
    sums = 2
    OFFSET: int  # a power of two, added to the integers to make them the unsigned ones of a strip; 0: they are signed
    LARGEST: int  # of those unsigned ones

    @abc.abstractmethod
    def emit_products(self, e: Emitter, w: Value, xs: Sequence[Value], biases: Sequence[Value]) -> list[Value]:
        """For each activation vector (<32 x i8>) and its bias (see Q80): the integer products in <8 x i32>."""

    @abc.abstractmethod
    def emit_integers(self, e: Emitter, w: Value) -> Value:
        """The block's 32 integers, <32 x i32>."""

    @abc.abstractmethod
    def strip_weights(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        """The block's integers of every row, eight <4 lanes x i8>; OFFSET added, or `e.signed_offset` where it is 0."""

    def strip_scale(self, e: StripEmitter, w: Strip) -> Value:
        """The block's d of every row."""
        return w.half(0)

    def emit_scale(self, e: Emitter, w: Value, count: int) -> Value:
        """The block's d as f32 in `count` lanes."""
        return e.load_half(w, 0, count)

    def steps(self, e: Emitter, columns: int = 0) -> Sequence[int]:
        return (2, 1)

    def start(self, e: Emitter) -> list[Value]:
        return [e.zero(e.floats(LANES))] * 2

    def emit_dot(self, e: Emitter, w: Value, xs: Sequence[Value], sums: Sequence[list[Value]], count: int) -> list[list[Value]]:
        totals = [list(column) for column in sums]
        for k in range(count):
            block = e.at(w, k * self.block_bytes)
            inputs = [e.at(x, k * Q80.block_bytes) for x in xs]
            quants = [e.load(x, 0, e.bytes(32)) for x in inputs]
            biases = [e.load(x, Q80.BIAS, e.I32) for x in inputs]
            scale = self.emit_scale(e, block, LANES)
            for column, x, product in zip(totals, inputs, self.emit_products(e, block, quants, biases), strict=True):
                both = e.mul(scale, e.load_splat(x, Q80.SCALE, e.F32, LANES))
                column[k] = e.fma(e.float(product), both, column[k])
        return totals

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        offset = self.OFFSET or e.signed_offset
        starts = [e.sar(e.splat_i32(x, Q80.BIAS), 8 - offset.bit_length()) for x in xs]  # -128 -> -offset times the sum
        if not offset:
            starts = [e.zero(e.vector(e.I32, e.lanes)) for _ in xs]
        weights, places, ones = w.paced(self.strip_weights(e, w)), range(0, 32, 4), e.strip_ones()
        if self.OFFSET:
            totals = e.strip_dot(starts, weights, xs, places, ones, self.LARGEST, w.wait)
        else:
            totals = e.strip_dot_signed(starts, weights, xs, places, ones, w.wait)
        scale = self.strip_scale(e, w)
        return [
            e.fma(e.float(total), e.mul(scale, e.load_splat(x, Q80.SCALE, e.F32, e.lanes)), column)
            for x, total, column in zip(xs, totals, sums, strict=True)
        ]

    def finish(self, e: Emitter, sums: list[Value]) -> Value:
        return e.sum(e.add(*sums))

    def emit_dequantize(self, e: Emitter, w: Value, out: Value, count: int) -> None:
        for k in range(count):
            block = e.at(w, k * self.block_bytes)
            values = e.mul(self.emit_scale(e, block, self.block_size), e.float(self.emit_integers(e, block)))
            e.store(values, out, 4 * k * self.block_size)
