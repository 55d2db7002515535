"""IQ1_S: entries of a grid of 2048 with values -1, 0 and 1; each group of 32 has a shift of an eighth and a 3-bit scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants import codebook
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.grids import grid
from runtime.quants.offset_block import OffsetBlockType
from runtime.quants.signed_block import Integers

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter

GRID = "IQ1_S"


class IQ1_S(OffsetBlockType):
    # ggml-common.h block_iq1_s: f16 d; u8 qs[32]; u16 qh[8].  value = d / 8 * (2 * scale[group] + 1) * (8 * grid[index] +- 1)
    # a group has four lower bytes of indices in qs and a word of qh: four times three upper bits, the scale, and the sign
    name = "IQ1_S"
    type_id = 19
    block_bytes = 50
    OFFSET = 9
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

    def emit_quants(self, e: Emitter, w: Value, quarter: int) -> Value:
        words = e.load(w, self.HIGH + 4 * quarter, e.I32)
        indices = codebook.emit_upper(e, w, 2 + 8 * quarter, words, (0, 3, 6, 9, 16, 19, 22, 25), 7)
        return emit_shifted(e, indices, words, [15] * 4 + [31] * 4)


def shifted_entries(indices: codebook.Indices, shifts: Integers) -> Integers:
    """8 * grid[index] + shift for indices and shifts (n, 32): (n, 256)."""
    weights: Integers = 8 * grid(GRID)[indices] + shifts[:, :, None]
    return weights.reshape(-1, 256)


def emit_shifted(e: Emitter, indices: list[Value], word: Value, signs: Sequence[int]) -> Value:
    """8 * grid[index] +- 1 + 9 at eight indices, <64 x i8>; -1 where the bit of `word` (i32) that `signs` says is set."""
    table = e.table("grid_IQ1", list((8 * grid(GRID) + 8).tobytes()))
    entries = e.cast(e.gather(table, e.I64, indices), e.bytes(64))
    words = e.splat(word if e.register == 64 else e.zext(word, e.I64), 8)  # 64 bytes test the former, 32 the latter sooner
    plus = e.builder.icmp_signed("==", e.band(words, [1 << bit for bit in signs]), e.zero(words.type))
    return e.add(entries, e.band(e.cast(e.sext(plus, e.I64), entries.type), 2))
