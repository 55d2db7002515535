"""IQ2_S: entries of a grid of 1024 with a sign bit for each value, and a 4-bit scale for each 16 values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants import codebook, laned
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.codebook import CodebookType
from runtime.quants.laned import Rows
from runtime.quants.signed_block import Integers

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.vbmi import Avx512Vbmi


class IQ2_S(CodebookType):
    # ggml-common.h block_iq2_s: f16 d; u8 qs[64]; u8 qh[8]; u8 scales[8]
    # value = d / 8 * (2 * scale[group] + 1) * sign * grid[index]
    # qs: 32 lower bytes of indices, whose upper two bits are in qh, lowest first; then 256 sign bits. Scale g: nibble g
    name = "IQ2_S"
    type_id = 22
    block_bytes = 82
    RUNS = (2, 34, 18, 50)
    LARGEST = 43
    SIGNS = 34
    HIGH = 66
    SCALES = 74

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        high = blocks[:, self.HIGH : self.SCALES, None] >> np.array([0, 2, 4, 6], np.uint8) & np.uint8(3)
        indices = blocks[:, 2 : self.SIGNS].astype(np.int16) | high.reshape(-1, 32).astype(np.int16) << 8
        weights = codebook.signed_entries(self, indices, blocks[:, self.SIGNS : self.HIGH])
        scales = 2 * codebook.nibble_scales(blocks[:, self.SCALES :]).astype(np.int8) + np.int8(1)
        return halves(blocks[:, :2]) * np.float32(0.125), scales, weights

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.mul(e.load_half(w, 0, count), 0.125)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        return codebook.emit_nibble_scales(e, w, self.SCALES, 8)

    def emit_indices(self, e: Emitter, w: Value) -> tuple[Value, ...]:
        high = e.zext(e.load(w, self.HIGH, e.vector(e.I16, 4)), e.I64)
        return e.load(w, 2, e.bytes(32)), e.fields(high, range(0, 16, 2), 2)

    def emit_index(self, e: Emitter, w: Value, index: int) -> Value:
        return codebook.emit_upper(e, w, 2 + index, e.load(w, self.HIGH, e.I64), 2 * index, 2)

    def emit_negative(self, e: Emitter, w: Value) -> Iterator[Value]:
        return codebook.emit_sign_bits(e, w, self.SIGNS)

    def emit_lane_indices(self, e: Avx512Vbmi, rows: Rows) -> Iterator[tuple[Value, ...]]:
        for four in range(8):
            first = 8 * (four % 4)
            high = e.lane_fields(rows.dwords(self.HIGH + four // 4 * 4), range(first, first + 8, 2))
            yield e.cast(rows.dwords(2 + 4 * four), high.type), high

    def emit_lane_flags(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        return [rows.dwords(self.SIGNS + 4 * group) for group in range(8)]

    def emit_lane_scales(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        return laned.emit_lane_nibbles(e, rows, self.SCALES)
