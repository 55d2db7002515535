"""IQ1_M: the grid of IQ1_S, with a shift for each 8 values, a 3-bit scale for each 16, and the block's scale in four parts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants import codebook, laned
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.iq1_s import ShiftedType, emit_shifted, shifted_entries
from runtime.quants.laned import Rows
from runtime.quants.signed_block import Integers

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.vbmi import Avx512Vbmi


class IQ1_M(ShiftedType):
    # ggml-common.h block_iq1_m: u8 qs[32]; u8 qh[16]; u8 scales[8]
    # value = d / 8 * (2 * scale[group] + 1) * (8 * grid[index] +- 1)
    # nibble i of qh: three upper bits of index i, and the sign of its shift. Each 16-bit word of `scales`: four times three
    # bits, then a nibble of d, the lowest first
    name = "IQ1_M"
    type_id = 29
    block_bytes = 56
    RUNS = (0, 24)
    HIGH = 32
    SCALES = 48

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        high = codebook.nibble_scales(blocks[:, self.HIGH : self.SCALES])
        indices = blocks[:, : self.HIGH].astype(np.int16) | (high & 7).astype(np.int16) << 8
        weights = shifted_entries(indices, np.int8(1) - 2 * (high >> 3).astype(np.int8))
        words = np.ascontiguousarray(blocks[:, self.SCALES :]).view("<u2")
        scales = 2 * (words[:, :, None] >> np.array([0, 3, 6, 9], np.uint16) & np.uint16(7)).astype(np.int8) + np.int8(1)
        nibbles = (words >> np.uint16(12)) << np.array([0, 4, 8, 12], np.uint16)
        factors = halves(np.bitwise_or.reduce(nibbles, axis=1, keepdims=True).astype("<u2").view(np.uint8))
        return factors * np.float32(0.125), scales.reshape(-1, 16), weights

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        nibbles = e.band(e.shr(e.load(w, self.SCALES, e.I64), 12), 0x000F000F000F000F)
        # nibble i moves from bit 16 i to bit 48 + 4 i; no other product reaches bit 48, and none meets another
        bits = e.shr(e.mul(nibbles, 1 << 48 | 1 << 36 | 1 << 24 | 1 << 12), 48)
        return e.mul(e.splat(e.half(e.trunc(bits, e.I16)), count), 0.125)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        words = e.shuffle(e.load(w, self.SCALES, e.vector(e.I16, 4)), [i // 4 for i in range(16)])
        fields = e.band(e.shr(words, [3 * (i % 4) for i in range(16)]), 7)
        return codebook.emit_odd(e, e.trunc(fields, e.I8))

    def emit_quants(self, e: Emitter, w: Value) -> Iterator[Value]:
        high = e.fields(e.zext(e.load(w, self.HIGH, e.vector(e.I32, 4)), e.I64), range(0, 32, 4), 4)
        return emit_shifted(e, (e.load(w, 0, e.bytes(32)), high), functools.partial(self._index, e, e.anew(w)), e.band(high, 8))

    def _index(self, e: Emitter, w: Value, index: int) -> Value:
        half, nibble = divmod(index, 16)
        return codebook.emit_upper(e, w, index, e.load(w, self.HIGH + 8 * half, e.I64), 4 * nibble, 3)

    def emit_lane_indices(self, e: Avx512Vbmi, rows: Rows) -> Iterator[tuple[Value, ...]]:
        return ((e.cast(rows.dwords(4 * four), e.bytes(64)), high) for four, high in enumerate(self._lane_high(e, rows)))

    def emit_lane_flags(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        return [e.cast(e.mask_of(e.band(high, 8)), e.vector(e.I32, 16)) for high in self._lane_high(e, rows)]

    def emit_lane_scales(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        words = [rows.dwords(self.SCALES + j // 2 * 4) for j in range(4)]
        return [laned.emit_lane_odd(e, word, range(16 * (j % 2), 16 * (j % 2) + 12, 3), 3) for j, word in enumerate(words)]

    def _lane_high(self, e: Avx512Vbmi, rows: Rows) -> Iterator[Value]:
        """Nibbles of `qh`, four at a time."""
        for four in range(8):
            first = 16 * (four % 2)
            yield e.lane_fields(rows.dwords(self.HIGH + four // 2 * 4), range(first, first + 16, 4))
