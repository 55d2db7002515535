"""IQ2_XXS: groups of 32 values, each four entries of a grid of 256 with packed signs, and a 4-bit scale."""

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


class IQ2_XXS(WordType):
    # ggml-common.h block_iq2_xxs: f16 d; u16 qs[32].  value = d / 8 * (2 * scale[group] + 1) * sign * grid[index]
    # 8 bytes of qs a group: four indices, then a word of four times 7 bits of signs and, in its upper 4 bits, the scale
    name = "IQ2_XXS"
    type_id = 16
    block_bytes = 66
    apart = True
    early = True
    RUNS = (2, 34)
    LARGEST = 43

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        groups = np.ascontiguousarray(blocks[:, 2:]).reshape(-1, 8, 8)
        words = groups[:, :, 4:].copy().view("<u4")
        signs = codebook.packed_signs(words >> np.array([0, 7, 14, 21], np.uint32) & np.uint32(127))
        weights = codebook.signed_entries(self, groups[:, :, :4].reshape(-1, 32), signs.reshape(-1, 32))
        scales = 2 * (words[:, :, 0] >> np.uint32(28)).astype(np.int8) + np.int8(1)
        return halves(blocks[:, :2]) * np.float32(0.125), np.repeat(scales, 2, axis=1), weights

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.mul(e.load_half(w, 0, count), 0.125)

    def emit_pairs(self, e: Emitter, w: Value) -> Value:
        return codebook.emit_word_scales(e, self._words(e, w))

    def emit_indices(self, e: Emitter, w: Value) -> tuple[Value, ...]:
        words = e.load(w, 2, e.vector(e.I32, 16))
        return (e.cast(e.shuffle(words, range(0, 16, 2)), e.bytes(32)),)

    def emit_index(self, e: Emitter, w: Value, index: int) -> Value:
        return codebook.emit_byte(e, w, 2 + 8 * (index // 4) + index % 4)

    def emit_negative(self, e: Emitter, w: Value) -> Iterator[Value]:
        words = e.cast(self._words(e, w), e.vector(e.I64, 4))
        return codebook.emit_packed_signs(e, e.fields(words, (0, 7, 14, 21, 32, 39, 46, 53), 7))

    @staticmethod
    def _words(e: Emitter, w: Value) -> Value:
        """The signs and scale of each group, <8 x i32>."""
        return e.shuffle(e.load(w, 2, e.vector(e.I32, 16)), range(1, 16, 2))

    def emit_lane_indices(self, e: Avx512Vbmi, rows: Rows) -> Iterator[tuple[Value, ...]]:
        return ((e.cast(rows.dwords(2 + 8 * group), e.bytes(64)),) for group in range(8))

    def lane_words(self, rows: Rows) -> list[Value]:
        return [rows.dwords(6 + 8 * group) for group in range(8)]
