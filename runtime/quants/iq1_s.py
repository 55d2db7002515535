"""IQ1_S: entries of a grid of 2048 with values -1, 0 and 1; each group of 32 has a shift of an eighth and a 3-bit scale."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants import codebook, laned
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.grids import grid
from runtime.quants.laned import Laned, Rows
from runtime.quants.offset_block import OffsetBlockType
from runtime.quants.signed_block import Integers

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.vbmi import Avx512Vbmi

GRID = "IQ1_S"


class ShiftedType(Laned, OffsetBlockType):
    """Eight times an entry, and a shift by one."""

    OFFSET = 9

    def levels(self) -> list[list[int]]:
        entries: list[list[int]] = grid(GRID).tolist()
        return entries

    def lane_weight(self, level: int, flag: int) -> int:
        return 8 * level + (-1 if flag else 1)


class IQ1_S(ShiftedType):
    # ggml-common.h block_iq1_s: f16 d; u8 qs[32]; u16 qh[8].  value = d / 8 * (2 * scale[group] + 1) * (8 * grid[index] +- 1)
    # a group has four lower bytes of indices in qs and a word of qh: four times three upper bits, the scale, and the sign
    name = "IQ1_S"
    type_id = 19
    block_bytes = 50
    RUNS = (2, 18)
    GROUP = 32
    HIGH = 34

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        words = np.ascontiguousarray(blocks[:, self.HIGH :]).view("<u2")
        upper = (words[:, :, None] >> np.array([0, 3, 6, 9], np.uint16) & np.uint16(7)).reshape(-1, 32)
        indices = blocks[:, 2 : self.HIGH].astype(np.int16) | upper.astype(np.int16) << 8
        shifts = np.int8(1) - 2 * (words >> np.uint16(15)).astype(np.int8)
        scales = 2 * (words >> np.uint16(12) & np.uint16(7)).astype(np.int8) + np.int8(1)
        weights = shifted_entries(indices, np.repeat(shifts, 4, axis=1))
        return halves(blocks[:, :2]) * np.float32(0.125), np.repeat(scales, 2, axis=1), weights

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.mul(e.load_half(w, 0, count), 0.125)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        words = e.load(w, self.HIGH, e.vector(e.I16, 8))
        scales = codebook.emit_odd(e, e.trunc(e.band(e.shr(words, 12), 7), e.I8))
        return e.shuffle(scales, [group for group in range(8) for _ in (0, 1)])

    def emit_quants(self, e: Emitter, w: Value) -> Iterator[Value]:
        words = e.load(w, self.HIGH, e.vector(e.I16, 8))
        high = e.fields(e.zext(e.cast(words, e.vector(e.I32, 4)), e.I64), (0, 3, 6, 9, 16, 19, 22, 25), 3)
        minus = e.trunc(e.shr(words, 8), e.I8)
        minus = e.band(e.shuffle(minus, [i // 4 for i in range(32)]), 128)
        return emit_shifted(e, (e.load(w, 2, e.bytes(32)), high), functools.partial(self._index, e, e.anew(w)), minus)

    def _index(self, e: Emitter, w: Value, index: int) -> Value:
        group, place = divmod(index, 4)
        word = e.zext(e.load(w, self.HIGH + 2 * group, e.I16), e.I64)
        return codebook.emit_upper(e, w, 2 + index, word, 3 * place, 3)

    def emit_lane_indices(self, e: Avx512Vbmi, rows: Rows) -> Iterator[tuple[Value, ...]]:
        for group in range(8):
            first = 16 * (group % 2)
            high = e.lane_fields(rows.dwords(self.HIGH + group // 2 * 4), range(first, first + 12, 3))
            yield e.cast(rows.dwords(2 + 4 * group), high.type), high

    def emit_lane_flags(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        words = [e.shl(rows.dwords(self.HIGH + group // 2 * 4), 16 - group % 2 * 16) for group in range(8)]
        return [e.sar(word, 31) for word in words]

    def emit_lane_scales(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        return [laned.emit_lane_odd(e, rows.dwords(self.HIGH + 4 * j), (12, 12, 28, 28), 3) for j in range(4)]


def shifted_entries(indices: codebook.Indices, shifts: Integers) -> Integers:
    """8 * grid[index] + shift for indices and shifts (n, 32): (n, 256)."""
    weights: Integers = 8 * grid(GRID)[indices] + shifts[:, :, None]
    return weights.reshape(-1, 256)


def emit_shifted(
    e: Emitter, indices: Sequence[Value], single: Callable[[int], Value], minus: Value
) -> Iterator[Value]:
    """8 * grid[index] +- 1 + 9 at 32 indices, four <64 x i8>; -1 where the byte of `minus` is not zero."""
    quarters = e.entries("IQ1", (8 * grid(GRID) + 8).tolist(), indices, single if e.registers == 16 else None)
    plus = e.builder.icmp_signed("==", minus, e.zero(minus.type))
    shifts = e.band(e.sext(plus, e.I8), 2)
    return (e.add(*both) for both in zip(quarters, e.octets(shifts), strict=True))
