"""IQ2_XS: entries of a grid of 512 with packed signs, and a 4-bit scale for each 16 values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants import codebook
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.codebook import CodebookType
from runtime.quants.signed_block import Integers

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter


class IQ2_XS(CodebookType):
    # ggml-common.h block_iq2_xs: f16 d; u16 qs[32]; u8 scales[8].  value = d / 8 * (2 * scale[group] + 1) * sign * grid[index]
    # qs: 9 bits of index, 7 bits of signs; scale g is nibble g of `scales`
    name = "IQ2_XS"
    type_id = 17
    block_bytes = 74
    apart = True
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

    def emit_indices(self, e: Emitter, w: Value) -> tuple[Value, ...]:
        words = self._words(e, w)
        return e.trunc(words, e.I8), e.trunc(e.band(e.shr(words, 8), 1), e.I8)

    def emit_index(self, e: Emitter, w: Value, index: int) -> Value:
        return e.band(e.zext(e.load(w, 2 + 2 * index, e.I16), e.I64), 511)

    def emit_negative(self, e: Emitter, w: Value) -> Iterator[Value]:
        return codebook.emit_packed_signs(e, e.trunc(e.shr(self._words(e, w), 9), e.I8))

    @staticmethod
    def _words(e: Emitter, w: Value) -> Value:
        return e.load(w, 2, e.vector(e.I16, 32))
