"""IQ3_XXS: groups of 32 values, each eight entries of a grid of 256 with packed signs, and a 4-bit scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants import codebook
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.codebook import WordType
from runtime.quants.laned import Rows
from runtime.quants.signed_block import Integers

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.vbmi import Avx512Vbmi


class IQ3_XXS(WordType):
    # ggml-common.h block_iq3_xxs: f16 d; u8 qs[96].  value = d / 4 * (2 * scale[group] + 1) * sign * grid[index],
    # whose entries are even: of their halves d / 2
    # qs: 64 indices, then for each group a word of four times 7 bits of signs and, in its upper 4 bits, the scale
    name = "IQ3_XXS"
    type_id = 18
    block_bytes = 98
    apart = True
    RUNS = (2, 34, 34, 66)
    LARGEST = 31
    UNIT = 2
    INDICES = 64
    WORDS = 66

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        words = np.ascontiguousarray(blocks[:, self.WORDS :]).view("<u4")
        signs = codebook.packed_signs(words[:, :, None] >> np.array([0, 7, 14, 21], np.uint32) & np.uint32(127))
        weights = codebook.signed_entries(self, blocks[:, 2 : self.WORDS], signs.reshape(-1, 32))
        scales = 2 * (words >> np.uint32(28)).astype(np.int8) + np.int8(1)
        return halves(blocks[:, :2]) * np.float32(0.5), np.repeat(scales, 2, axis=1), weights

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.mul(e.load_half(w, 0, count), 0.5)

    def emit_pairs(self, e: Emitter, w: Value) -> Value:
        return codebook.emit_word_scales(e, e.load(w, self.WORDS, e.vector(e.I32, 8)))

    def emit_indices(self, e: Emitter, w: Value) -> tuple[Value, ...]:
        return (e.load(w, 2, e.bytes(64)),)

    def emit_index(self, e: Emitter, w: Value, index: int) -> Value:
        return codebook.emit_byte(e, w, 2 + index)

    def emit_negative(self, e: Emitter, w: Value) -> Iterator[Value]:
        words = e.load(w, self.WORDS, e.vector(e.I64, 4))
        return codebook.emit_packed_signs(e, e.fields(words, (0, 7, 14, 21, 32, 39, 46, 53), 7))

    def emit_lane_indices(self, e: Avx512Vbmi, rows: Rows) -> Iterator[tuple[Value, ...]]:
        return ((e.cast(rows.dwords(2 + 4 * four), e.bytes(64)),) for four in range(16))

    def lane_words(self, rows: Rows) -> list[Value]:
        return [rows.dwords(self.WORDS + 4 * group) for group in range(8)]
