"""What Q4_1 and Q5_1 share: blocks of 32 unsigned quants with a scale and a minimum."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.activations import Q80
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.small import LANES, SmallBlockType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class SmallMinType(SmallBlockType):
    """value = d * quant + m; the block starts with f16 d, f16 m."""

    @abc.abstractmethod
    def quants(self, blocks: Bytes) -> Bytes:
        """(n, block_bytes) -> (n, 32), the unsigned quants."""

    @abc.abstractmethod
    def emit_quants(self, e: Emitter, w: Value) -> Value:
        """The block's quants, <32 x i8>."""

    def dequantize(self, blocks: Bytes) -> Floats:
        d, m = halves(blocks[:, :2]), halves(blocks[:, 2:4])
        values: Floats = d * self.quants(blocks).astype(np.float32) + m
        return values

    def emit_products(self, e: Emitter, w: Value, xs: Sequence[Value], biases: Sequence[Value]) -> list[Value]:
        quants, zero = self.emit_quants(e, w), e.zero(e.vector(e.I32, LANES))
        return [e.dot(zero, quants, x) for x in xs]

    def emit_integers(self, e: Emitter, w: Value) -> Value:
        return e.zext(self.emit_quants(e, w), e.I32)

    def emit_dot(self, e: Emitter, w: Value, xs: Sequence[Value], sums: Sequence[list[Value]], count: int) -> list[list[Value]]:
        totals = super().emit_dot(e, w, xs, sums, count)
        for k in range(count):
            minimum = e.load_half(e.at(w, k * self.block_bytes), 2, LANES)
            for column, x in zip(totals, xs, strict=True):
                at = e.at(x, k * Q80.block_bytes)
                total = e.first_lane(e.sar(e.load(at, Q80.BIAS, e.I32), 7), LANES)  # minus the sum of the inputs
                scaled = e.mul(minimum, e.load_splat(at, Q80.SCALE, e.F32, LANES))
                column[k] = e.sub(column[k], e.mul(e.float(total), scaled))
        return totals

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        starts = [e.zero(e.vector(e.I32, e.lanes)) for _ in xs]
        weights = w.paced(self.strip_weights(e, w))
        totals = e.strip_dot(starts, weights, xs, range(0, 32, 4), e.strip_ones(), self.LARGEST, w.wait)
        d, m = w.half(0), w.half(2)
        results = []
        for x, total, column in zip(xs, totals, sums, strict=True):
            scale = e.load_splat(x, Q80.SCALE, e.F32, e.lanes)
            inputs = e.float(e.sar(e.splat_i32(x, Q80.BIAS), 7))  # minus their sum
            value = e.sub(e.mul(e.float(total), d), e.mul(inputs, m))
            results.append(e.fma(value, scale, column))
        return results

    def emit_dequantize(self, e: Emitter, w: Value, out: Value, count: int) -> None:
        for k in range(count):
            block = e.at(w, k * self.block_bytes)
            scaled = e.mul(e.load_half(block, 0, self.block_size), e.float(self.emit_integers(e, block)))
            e.store(e.add(scaled, e.load_half(block, 2, self.block_size)), out, 4 * k * self.block_size)
