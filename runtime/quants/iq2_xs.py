"""IQ2_XS: entries of a grid of 512 with packed signs, and a 4-bit scale for each 16 values."""

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


class IQ2_XS(CodebookType):
    # ggml-common.h block_iq2_xs: f16 d; u16 qs[32]; u8 scales[8].  value = d / 8 * (2 * scale[group] + 1) * sign * grid[index]
    # qs: 9 bits of index, 7 bits of signs; scale g is nibble g of `scales`
    name = "IQ2_XS"
    type_id = 17
    block_bytes = 74
    apart = True
    RUNS = (2, 34, 10, 42)
    LARGEST = 43
    SCALES = 66

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        words = np.ascontiguousarray(blocks[:, 2 : self.SCALES]).view("<u2")
        signs = codebook.packed_signs(words >> np.uint16(9))
        weights = codebook.signed_entries(self, words & np.uint16(511), signs)
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

    def emit_lane_indices(self, e: Avx512Vbmi, rows: Rows) -> Iterator[tuple[Value, ...]]:
        return ((self._lane_bytes(e, rows, four, 0), self._lane_bytes(e, rows, four, 1)) for four in range(8))

    def emit_lane_flags(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        words = [e.cast(self._lane_bytes(e, rows, four, 1), e.vector(e.I32, 16)) for four in range(8)]
        return [e.cast(e.even_signs(e.cast(e.shr(word, 1), e.bytes(64))), word.type) for word in words]

    def emit_lane_scales(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        return laned.emit_lane_nibbles(e, rows, self.SCALES)

    @staticmethod
    def _lane_bytes(e: Avx512Vbmi, rows: Rows, four: int, half: int) -> Value:
        """The lower or the upper bytes of four words."""
        two = [e.cast(rows.dwords(2 + 8 * four + offset), e.bytes(64)) for offset in (0, 4)]
        return e.shuffle(two[0], [4 * row + place + half for row in range(16) for place in (0, 2, 64, 66)], two[1])
