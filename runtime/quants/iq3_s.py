"""IQ3_S: groups of 32 values, each eight entries of a grid of 512 with a sign bit for each value, and a 4-bit scale."""

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


class IQ3_S(CodebookType):
    # ggml-common.h block_iq3_s: f16 d; u8 qs[64]; u8 qh[8]; u8 signs[32]; u8 scales[4]
    # value = d * (2 * scale[group] + 1) * sign * grid[index]; bit i of qh is the ninth bit of index i; scale g: nibble g
    name = "IQ3_S"
    type_id = 21
    block_bytes = 110
    RUNS = (2, 34, 46, 78)
    LARGEST = 15
    GROUP = 32
    INDICES = 64
    HIGH = 66
    SIGNS = 74
    SCALES = 106

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        ninth = np.unpackbits(blocks[:, self.HIGH : self.SIGNS], axis=1, bitorder="little")
        indices = blocks[:, 2 : self.HIGH].astype(np.int16) | ninth.astype(np.int16) << 8
        weights = codebook.signed_entries(self, indices, blocks[:, self.SIGNS : self.SCALES])
        scales = 2 * codebook.nibble_scales(blocks[:, self.SCALES :]).astype(np.int8) + np.int8(1)
        return halves(blocks[:, :2]), np.repeat(scales, 2, axis=1), weights

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.load_half(w, 0, count)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        scales = codebook.emit_nibble_scales(e, w, self.SCALES, 4)
        return e.shuffle(scales, [group for group in range(8) for _ in (0, 1)])

    def emit_indices(self, e: Emitter, w: Value) -> tuple[Value, ...]:
        return e.load(w, 2, e.bytes(64)), e.mask(e.load(w, self.HIGH, e.I64))

    def emit_index(self, e: Emitter, w: Value, index: int) -> Value:
        return codebook.emit_upper(e, w, 2 + index, e.load(w, self.HIGH, e.I64), index, 1)

    def emit_negative(self, e: Emitter, w: Value) -> Iterator[Value]:
        return codebook.emit_sign_bits(e, w, self.SIGNS)

    def emit_lane_indices(self, e: Avx512Vbmi, rows: Rows) -> Iterator[tuple[Value, ...]]:
        for four in range(16):
            first = 4 * (four % 8)
            high = e.lane_fields(rows.dwords(self.HIGH + four // 8 * 4), range(first, first + 4))
            yield e.cast(rows.dwords(2 + 4 * four), high.type), high

    def emit_lane_flags(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        return [rows.dwords(self.SIGNS + 4 * group) for group in range(8)]

    def emit_lane_scales(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        return [laned.emit_lane_odd(e, rows.dwords(self.SCALES), [8 * j, 8 * j, 8 * j + 4, 8 * j + 4], 4) for j in range(4)]
