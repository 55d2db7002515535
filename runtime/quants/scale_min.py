"""What Q4_K and Q5_K share: eight groups of 32 unsigned quants, each with a 6-bit scale and a 6-bit min."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.activations import Q8K
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.strips import Strip, StripType
from runtime.quants.super_block import (
    SuperBlockType,
    add_strip,
    emit_scales_and_mins,
    load_half,
    scales_and_mins,
    strip_scales_and_mins,
)

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class ScaleMinType(SuperBlockType, StripType):
    """value = d * scale[group] * q - dmin * min[group]; the block starts with f16 d, f16 dmin, u8 scales[12]."""

    LARGEST: int  # quant
    opens = 14

    @abc.abstractmethod
    def quants(self, blocks: Bytes) -> Bytes:
        """(n, block_bytes) -> (n, 8, 32), the unsigned quants by group."""

    @abc.abstractmethod
    def emit_quants(self, e: Emitter, w: Value, pair: int) -> Value:
        """Quants of groups 2 pair and 2 pair + 1, <64 x i8>."""

    def dequantize(self, blocks: Bytes) -> Floats:
        d, dmin = halves(blocks[:, :2]), halves(blocks[:, 2:4])
        scales, mins = scales_and_mins(blocks[:, 4:16])
        values = (d * scales)[:, :, None] * self.quants(blocks).astype(np.float32) - (dmin * mins)[:, :, None]
        return values.reshape(-1, self.block_size)

    def emit_dot(self, e: Emitter, w: Value, xs: Sequence[Value], sums: Sequence[list[Value]], count: int) -> list[list[Value]]:
        head = e.load(w, 0, e.vector(e.I32, 4))
        packed = emit_scales_and_mins(e, head)
        totals = [e.zero(e.vector(e.I32, e.lanes)) for _ in xs]
        for half, scales in enumerate(e.lane_scales(packed, [group for group in range(8) for _ in (0, 1)], signed=False)):
            quants = [self.emit_quants(e, w, pair) for pair in (2 * half, 2 * half + 1)]
            totals = e.dot_scaled(totals, quants, [load_half(e, x, half) for x in xs], scales)
        d, dmin = self._factors(e, head, e.lanes)
        mins = e.zext(e.shuffle(packed, [8 + group for group in range(8) for _ in (0, 1)]), e.I16)  # one for each 16 values
        results = []
        for x, total, column in zip(xs, totals, sums, strict=True):
            offset = e.to_lanes(e.madd16(mins, e.load(x, Q8K.SUMS, e.vector(e.I16, 16))))
            value = e.fma(e.float(offset), dmin, e.mul(e.float(total), d))
            results.append([e.fma(value, e.load_splat(x, Q8K.SCALE, e.F32, e.lanes), column[0])])
        return results

    @abc.abstractmethod
    def strip_quants(self, e: StripEmitter, w: Strip, group: int) -> Iterator[Value]:
        """Quants of a group of every row, eight <4 lanes x i8>."""

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        scales, mins = strip_scales_and_mins(e, w)
        pairs = [w.made(e.strip_pairs(mins[k // 2], 2 * (k % 2), 2 * (k % 2) + 1)) for k in range(4)]
        totals = offsets = [e.zero(e.vector(e.I32, e.lanes)) for _ in xs]
        between = len(xs) == 1 and e.registers == 32  # more even from memory; several columns have no room for it
        for group in range(8):
            scale = w.made(e.strip_scale(scales[group // 4], group % 4))
            inputs = range(32 * group, 32 * group + 32, 4)
            quants = w.paced(self.strip_quants(e, w, group))
            totals = e.strip_dot(totals, quants, xs, inputs, scale, self.LARGEST, w.wait)
            if between and group % 2:
                offsets = self._offsets(e, offsets, pairs, xs, [group // 2])
        if not between:
            offsets = self._offsets(e, offsets, pairs, xs, range(4))
        d, dmin = w.half(0), w.half(2)
        values = [e.fma(e.float(o), dmin, e.mul(e.float(t), d)) for o, t in zip(offsets, totals, strict=True)]
        return add_strip(e, xs, values, sums)

    @staticmethod
    def _offsets(
        e: StripEmitter, totals: Sequence[Value], pairs: Sequence[Value], xs: Sequence[Value], which: Iterable[int]
    ) -> list[Value]:
        """For each column its total and (min times minus the sum of the inputs) of these pairs of groups, <lanes x i32>."""
        found = []
        for total, x in zip(totals, xs, strict=True):
            for k in which:
                total = e.strip_madd(total, pairs[k], x, Q8K.PAIRS + 4 * k)
            found.append(total)
        return found

    def emit_dequantize(self, e: Emitter, w: Value, out: Value, count: int) -> None:
        head = e.load(w, 0, e.vector(e.I32, 4))
        packed = e.float(e.zext(emit_scales_and_mins(e, head), e.I32))
        d, dmin = self._factors(e, head, 8)
        scales, mins = e.halves(packed)
        scales, mins = e.mul(scales, d), e.mul(mins, dmin)
        for pair in range(4):
            for half, quants in enumerate(e.halves(self.emit_quants(e, w, pair))):
                group = 2 * pair + half
                scaled = e.mul(e.float(e.zext(quants, e.I32)), e.shuffle(scales, [group] * 32))
                e.store(e.sub(scaled, e.shuffle(mins, [group] * 32)), out, 4 * 32 * group)

    @staticmethod
    def _factors(e: Emitter, head: Value, count: int) -> tuple[Value, Value]:
        """d and dmin in `count` lanes each."""
        both = e.half(e.shuffle(e.cast(head, e.vector(e.I16, 8)), range(4)))
        return e.shuffle(both, [0] * count), e.shuffle(both, [1] * count)
