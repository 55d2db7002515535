"""IQ1_M: the grid of IQ1_S, with a shift for each 8 values, a 3-bit scale for each 16, and the block's scale in four parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.quants import codebook
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.iq1_s import emit_shifted, shifted_entries
from runtime.quants.offset_block import OffsetBlockType
from runtime.quants.signed_block import Integers

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter


class IQ1_M(OffsetBlockType):
    # ggml-common.h block_iq1_m: u8 qs[32]; u8 qh[16]; u8 scales[8]
    # value = d / 8 * (2 * scale[group] + 1) * (8 * grid[index] +- 1)
    # nibble i of qh: three upper bits of index i, and the sign of its shift. Each 16-bit word of `scales`: four times three
    # bits, then a nibble of d, the lowest first
    name = "IQ1_M"
    type_id = 29
    block_bytes = 56
    OFFSET = 9
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
        words = e.load(w, self.SCALES, e.I64)
        bits = e.band(e.shr(words, 12), 0xF)
        for i, shift in ((1, 24), (2, 36), (3, 48)):
            bits = e.bor(bits, e.band(e.shr(words, shift), 0xF << 4 * i))
        return e.mul(e.splat(e.half(e.trunc(bits, e.I16)), count), 0.125)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        words = e.splat(e.load(w, self.SCALES, e.I64), 16)
        fields = e.band(e.shr(words, [16 * (i // 4) + 3 * (i % 4) for i in range(16)]), 7)
        return codebook.emit_odd(e, e.trunc(fields, e.I8))

    def emit_quants(self, e: Emitter, w: Value, quarter: int) -> Value:
        high = e.zext(e.load(w, self.HIGH + 4 * quarter, e.I32), e.I64)
        low = [codebook.emit_byte(e, w, 8 * quarter + i) for i in range(8)]
        indices = [codebook.emit_upper(e, byte, high, 4 * i, 7) for i, byte in enumerate(low)]
        return emit_shifted(e, indices, e.shr(e.splat(high, 8), [4 * i + 3 for i in range(8)]))
