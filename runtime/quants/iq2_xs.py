"""IQ2_XS: entries of a grid of 512 with packed signs, and a 4-bit scale for each 16 values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.quants import codebook
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.signed_block import Integers, SignedBlockType

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter


class IQ2_XS(SignedBlockType):
    # ggml-common.h block_iq2_xs: f16 d; u16 qs[32]; u8 scales[8].  value = d / 8 * (2 * scale[group] + 1) * sign * grid[index]
    # qs: 9 bits of index, 7 bits of signs; scale g is nibble g of `scales`
    name = "IQ2_XS"
    type_id = 17
    block_bytes = 74
    LARGEST = 43
    SCALES = 66

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        words = np.ascontiguousarray(blocks[:, 2 : self.SCALES]).view("<u2")
        signs = codebook.packed_signs(words >> np.uint16(9))
        weights = codebook.signed_entries(self.name, words & np.uint16(511), signs)
        scales = 2 * codebook.nibble_scales(blocks[:, self.SCALES :]).astype(np.int8) + np.int8(1)
        return halves(blocks[:, :2]) * np.float32(0.125), scales, weights

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.mul(e.load_half(w, 0, count), 0.125)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        return codebook.emit_nibble_scales(e, w, self.SCALES, 8)

    def emit_weights(self, e: Emitter, w: Value, quarter: int) -> Value:
        words = [e.zext(e.load(w, 2 + 16 * quarter + 2 * i, e.I16), e.I64) for i in range(8)]
        entries = codebook.emit_entries(e, self.name, [e.band(word, 511) for word in words])
        pairs = [(e.load(w, 2 + 16 * quarter + 8 * half, e.I64), (9, 25, 41, 57)) for half in (0, 1)]
        return codebook.emit_signed(e, entries, codebook.emit_packed_signs(e, pairs))
