"""What the IQ1, IQ2 and IQ3 types share: entries of a grid, which for IQ2 and IQ3 are magnitudes, and signs."""

from __future__ import annotations

import abc
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from runtime.quants.activations import Q8K
from runtime.quants.base import Bytes, Value
from runtime.quants.grids import grid
from runtime.quants.laned import Laned, Rows, emit_lane_odd
from runtime.quants.signed_block import Integers, SignedBlockType
from runtime.quants.super_block import load_half

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.vbmi import Avx512Vbmi

Indices = npt.NDArray[np.integer]

# Signs of 8 values in 7 bits: bit i for value i, and the last is such that the number of minus signs is even.
_SEVEN = np.arange(128, dtype=np.uint8)
_EIGHT = _SEVEN | (np.unpackbits(_SEVEN[:, None], axis=1).sum(axis=1, dtype=np.uint8) & np.uint8(1)) << np.uint8(7)


class CodebookType(Laned, SignedBlockType):
    """value = factor * scale[group of 16] * sign * entry of the type's grid; entries are at most LARGEST, 63 or less.

    Signs go to the inputs, so that what is multiplied with them is unsigned.
    """

    INDICES = 32  # of a block
    UNIT = 1
    """What all entries of the grid are multiples of; in terms of it they are smaller, and more products fit 16 bits together."""
    apart: bool = False  # whether memory holds each by itself
    early: bool = False
    """Whether one column takes two blocks at a time and makes the signs of both first, since much has to wait for them."""

    @abc.abstractmethod
    def emit_indices(self, e: Emitter, w: Value) -> tuple[Value, ...]:
        """The block's indices, <INDICES x i8>, and, of a larger grid, their upper bits as bytes (others of these may be set)."""

    @abc.abstractmethod
    def emit_index(self, e: Emitter, w: Value, index: int) -> Value:
        """One of them, i64."""

    @abc.abstractmethod
    def emit_negative(self, e: Emitter, w: Value) -> Iterator[Value]:
        """Which of the block's values are negative, four <64 x i1>."""

    def steps(self, e: Emitter, columns: int = 0) -> Sequence[int]:
        steps = (2, 1) if columns == 1 and self.early else super().steps(e, columns)
        together = self._together(e)
        return steps if together in (1, *steps) else (*(count for count in steps if count > together), together, 1)

    def _together(self, e: Emitter) -> int:
        """Blocks whose entries are looked up at a time."""
        return max(1, e.indices_at_once // self.INDICES)

    def emit_totals(self, e: Emitter, w: Value, xs: Sequence[Value], count: int) -> Iterator[list[Value]]:
        some = min(count, self._together(e))
        blocks = [e.at(w, k * self.block_bytes) for k in range(count)]
        signs = [self.emit_negative(e, block) for block in blocks]
        if self.early and count > 1:
            firsts = [next(of_block) for of_block in signs]
            signs = [itertools.chain([first], rest) for first, rest in zip(firsts, signs, strict=True)]
            xs = [e.after(x, e.halves(firsts[-1])[0]) for x in xs] if e.registers == 16 else xs
        for k, (block, negative) in enumerate(zip(blocks, signs, strict=True)):
            if k % some == 0:
                magnitudes = self._emit_magnitudes(e, block, some)
            yield self._emit_signed(e, block, [e.at(x, k * Q8K.block_bytes) for x in xs], magnitudes, negative)

    def _emit_signed(
        self, e: Emitter, w: Value, xs: Sequence[Value], magnitudes: Iterator[Value], negative: Iterator[Value]
    ) -> list[Value]:
        totals = [e.zero(e.vector(e.I32, e.lanes)) for _ in xs]
        for half, scales in enumerate(self.lane_scales(e, w)):
            weights, signs = (list(itertools.islice(parts, 2)) for parts in (magnitudes, negative))
            inputs = [[e.flipped(*both) for both in zip(load_half(e, x, half), signs, strict=True)] for x in xs]
            totals = e.dot_scaled(totals, weights, inputs, scales)
        return totals

    def _emit_magnitudes(self, e: Emitter, w: Value, count: int) -> Iterator[Value]:
        """Those of `count` blocks in order, <64 x i8> each."""
        blocks = [e.at(w, k * self.block_bytes) for k in range(count)]
        indices = [self.emit_indices(e, block) for block in blocks]
        joined = [part[0] if count == 1 else e.concat(*part) for part in zip(*indices, strict=True)]
        alone = self.apart or (e.registers == 16 and self.INDICES == 32)  # more of them keep integer units busy for too long
        single = functools.partial(self.emit_index, e, e.anew(w)) if alone else None
        return e.entries(self.name, self.levels(), joined, single)

    def levels(self) -> list[list[int]]:
        entries: list[list[int]] = (grid(self.name) // self.UNIT).tolist()
        return entries

    def lane_weight(self, level: int, flag: int) -> int:
        return -level if flag else level

    def emit_weights(self, e: Emitter, w: Value) -> Iterator[Value]:
        return (e.flipped(*both) for both in zip(self._emit_magnitudes(e, w, 1), self.emit_negative(e, w), strict=True))


class WordType(CodebookType):
    """A type with a word for each group of 32 values: four times seven sign bits and, in its upper four, the scale."""

    GROUP = 32

    @abc.abstractmethod
    def lane_words(self, rows: Rows) -> list[Value]:
        """Those of all rows, <16 x i32> for each group."""

    def emit_lane_flags(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        return [e.cast(e.even_signs(e.lane_fields(word, (0, 7, 14, 21))), word.type) for word in self.lane_words(rows)]

    def emit_lane_scales(self, e: Avx512Vbmi, rows: Rows) -> list[Value]:
        words = [e.cast(word, e.bytes(64)) for word in self.lane_words(rows)]
        places = [64 * half + 4 * row + 3 for row in range(16) for half in (0, 0, 1, 1)]
        pairs = zip(words[::2], words[1::2], strict=True)
        return [emit_lane_odd(e, e.shuffle(first, places, second), range(4, 32, 8), 4) for first, second in pairs]


def packed_signs(indices: Indices) -> Bytes:
    """Seven bits (..., n) -> eight sign bits each."""
    signs: Bytes = _EIGHT[indices]
    return signs


def signed_entries(kind: CodebookType, indices: Indices, signs: Bytes) -> Integers:
    """Entries of a type's grid in order, with the signs that the bits of `signs` (n, 32) give: (n, 256)."""
    magnitudes = grid(kind.name)[indices].reshape(len(indices), 256) // kind.UNIT
    negative = np.unpackbits(signs, axis=1, bitorder="little").astype(bool)
    return np.where(negative, -magnitudes, magnitudes)


def nibble_scales(packed: Bytes) -> Bytes:
    """(n, count) -> (n, 2 count): nibbles, the low ones first."""
    return np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), -1)


def emit_nibble_scales(e: Emitter, w: Value, offset: int, count: int) -> Value:
    """2 q + 1 for the nibbles q of `count` bytes at `offset`, low ones first."""
    packed = e.load(w, offset, e.bytes(count))
    low, high = e.band(packed, 15), e.builder.lshr(packed, e.constant(packed.type, 4))
    return emit_odd(e, e.shuffle(low, [lane for i in range(count) for lane in (i, count + i)], high))


def emit_odd(e: Emitter, values: Value) -> Value:
    """2 v + 1"""
    return e.bor(e.shl(values, 1), 1)


def emit_twice(e: Emitter, scales: Value) -> Value:
    """Each of eight scales twice, <16 x i16>; of words only the lower halves count."""
    parts = scales.type.element.width // 16
    return e.shuffle(e.cast(scales, e.vector(e.I16, 8 * parts)), [parts * (i // 2) for i in range(16)])


def emit_word_scales(e: Emitter, words: Value) -> Value:
    """2 q + 1 for q in the upper four bits of eight words, each twice."""
    return emit_twice(e, e.bor(e.shr(words, 27), 1))


def emit_packed_signs(e: Emitter, sevens: Value) -> Iterator[Value]:
    """Seven sign bits in each of 32 bytes -> four masks, see `CodebookType.emit_negative`."""
    return e.sign_masks(e.even_signs(sevens))


def emit_sign_bits(e: Emitter, w: Value, offset: int) -> Iterator[Value]:
    """The 256 bits at `offset` as four masks."""
    return (e.bits(e.load(w, offset + 8 * quarter, e.I64)) for quarter in range(4))


def emit_upper(e: Emitter, w: Value, offset: int, word: Value, first: int, width: int) -> Value:
    """The byte at `offset` as i64, and above it the `width` bits of `word` from bit `first` on."""
    return e.bor(emit_byte(e, w, offset), e.shl(e.band(e.shr(word, first), (1 << width) - 1), 8))


def emit_byte(e: Emitter, w: Value, offset: int) -> Value:
    """The byte at `offset` as i64."""
    return e.zext(e.load(w, offset, e.I8), e.I64)
