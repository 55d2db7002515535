"""IQ3_S: groups of 32 values, each eight entries of a grid of 512 with a sign bit for each value, and a 4-bit scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.quants import codebook
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.offset_block import OffsetBlockType
from runtime.quants.signed_block import Integers

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter


class IQ3_S(OffsetBlockType):
    # ggml-common.h block_iq3_s: f16 d; u8 qs[64]; u8 qh[8]; u8 signs[32]; u8 scales[4]
    # value = d * (2 * scale[group] + 1) * sign * grid[index]; bit i of qh is the ninth bit of index i; scale g: nibble g
    name = "IQ3_S"
    type_id = 21
    block_bytes = 110
    OFFSET = 15
    HIGH = 66
    SIGNS = 74
    SCALES = 106

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        ninth = np.unpackbits(blocks[:, self.HIGH : self.SIGNS], axis=1, bitorder="little")
        indices = blocks[:, 2 : self.HIGH].astype(np.int16) | ninth.astype(np.int16) << 8
        weights = codebook.signed_entries(self.name, indices, blocks[:, self.SIGNS : self.SCALES])
        scales = 2 * codebook.nibble_scales(blocks[:, self.SCALES :]).astype(np.int8) + np.int8(1)
        return halves(blocks[:, :2]), np.repeat(scales, 2, axis=1), weights

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.load_half(w, 0, count)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        scales = codebook.emit_nibble_scales(e, w, self.SCALES, 4)
        return e.shuffle(scales, [group for group in range(8) for _ in (0, 1)])

    def emit_quants(self, e: Emitter, w: Value, quarter: int) -> Value:
        low = e.zext(e.load(w, 2 + 16 * quarter, e.bytes(16)), e.I16)
        ninth = e.band(e.sext(e.mask(e.load(w, self.HIGH + 2 * quarter, e.I16)), e.I16), 256)
        indices = e.unpacked(e.bor(low, ninth))
        mask = e.mask(e.load(w, self.SIGNS + 8 * quarter, e.I64))
        weights = codebook.emit_signed(e, codebook.emit_entries(e, self.name, indices), mask)
        return e.add(weights, e.constant(weights.type, self.OFFSET))
