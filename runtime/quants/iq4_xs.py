"""IQ4_XS: eight groups of 32 nibbles that choose from the values of IQ4_NL, each with a 6-bit scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.iq4_nl import VALUES
from runtime.quants.nibbles import nibbles
from runtime.quants.signed_block import Integers, SignedBlockType

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter


class IQ4_XS(SignedBlockType):
    # ggml-common.h block_iq4_xs: f16 d; u16 scales_h; u8 scales_l[4]; u8 qs[128].  value = d * (scale[group] - 32) * VALUES[q]
    # scale g: nibble g of scales_l, and above it bits 2g and 2g + 1 of scales_h; 16 bytes of qs a group, low nibbles first
    name = "IQ4_XS"
    type_id = 23
    block_bytes = 136
    LARGEST = 127

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
        high = (blocks[:, 2:4, None] >> np.array([0, 2, 4, 6], np.uint8) & 3).reshape(-1, 8)
        scales = (low | high << 4).astype(np.int8) - np.int8(32)
        weights = np.array(VALUES, np.int8)[nibbles(blocks[:, 8:].reshape(-1, 8, 16))]
        return halves(blocks[:, :2]), np.repeat(scales, 2, axis=1), weights

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.load_half(w, 0, count)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        low = e.shuffle(e.load(w, 4, e.bytes(4)), [group // 2 for group in range(8)] * 2)
        high = e.shuffle(e.load(w, 2, e.bytes(2)), [group // 4 for group in range(8)] * 2)
        low = e.band(e.builder.lshr(low, e.constant(low.type, [0, 4] * 8)), 15)
        high = e.shl(e.band(e.builder.lshr(high, e.constant(high.type, [0, 2, 4, 6] * 4)), 3), 4)
        scales = e.sub(e.bor(low, high), e.constant(low.type, 32))
        return e.shuffle(scales, [group for group in range(8) for _ in (0, 1)])

    def emit_weights(self, e: Emitter, w: Value, quarter: int) -> Value:
        packed = e.load(w, 8 + 32 * quarter, e.bytes(32))
        both = e.shuffle(packed, [*range(16)] * 2 + [*range(16, 32)] * 2)
        return e.lookup(VALUES, e.shift_bytes(both, (0, -4, 0, -4), 15))
