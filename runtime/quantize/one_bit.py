"""IQ1_S and IQ1_M: entries of a codebook with values -1, 0 and 1, all moved by an eighth one way or the other
(ggml-quants.c quantize_row_iq1_s_impl, quantize_row_iq1_m_impl).

Values in their order fall into three runs, and all borders between them are tried.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from runtime.quantize.codebook import codebook
from runtime.quantize.codebook_search import number_of
from runtime.quantize.rounding import HALF, LARGEST, ONE, ZERO, clamp, encoder, half_bits, inner, nearest, store_half

_SHIFT = np.float32(0.125)
_SMALLEST_S, _SMALLEST_M = np.float32(1e-12), np.float32(1e-7)  # groups below it are zeros


class _Split(NamedTuple):
    """Where the two borders are, the scale, and which way each half of the group is moved."""

    first: Any
    second: Any
    scale: Any
    shift: Any
    other_shift: Any


@inner
def _sort(x: Any, order: Any) -> None:
    """Places of the values in ascending order; equal ones stay in theirs."""
    for i in range(len(x)):
        place = i
        while place and x[order[place - 1]] > x[i]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = i


@inner
def _largest(x: Any) -> Any:
    largest = ZERO
    for value in x:
        largest = max(largest, abs(value))
    return largest


@inner
def _set_levels(split: Any, order: Any, levels: Any) -> None:
    """0, 1 or 2 for each value; of a negative scale the other way round."""
    for j in range(len(order)):
        level = 0 if j < split.first else 1 if j < split.second else 2
        levels[order[j]] = 2 - level if split.scale < ZERO else level


@inner
def _upright(split: Any) -> Any:
    """With a scale that is not negative."""
    if split.scale < ZERO:
        return _Split(split.first, split.second, -split.scale, -split.shift, -split.other_shift)
    return split


# ---------------------------------------------------------------- the codebook


@inner
def _entry(book: Any, x: Any, weights: Any, first: int, scale: float, shift: float, levels: Any) -> Any:
    """The entry for eight levels, or of those nearest to them the one that leaves the least error; whether it was that one."""
    index = book.entry[number_of(levels, first, 8, 2)]
    if index >= 0:
        return index, True
    best, error = np.int32(0), LARGEST
    for at in range(book.starts[-1 - index], book.starts[-index]):
        other, total = np.int32(book.neighbours[at]), ZERO
        for i in range(8):
            diff = scale * (np.float32(book.levels[other, i] - 1) + shift) - x[first + i]
            total += weights[first + i] * diff * diff
        if total < error:
            best, error = other, total
    return best, False


@inner
def _add(book: Any, index: int, x: Any, weights: Any, first: int, shift: float, factor: float, sums: Any) -> None:
    """The products of an entry, `factor` times as large, with eight values, and with itself."""
    for i in range(8):
        value = (np.float32(book.levels[index, i] - 1) + shift) * factor
        sums[0] += weights[first + i] * value * x[first + i]
        sums[1] += weights[first + i] * value * value


@inner
def _settle(book: Any, x: Any, weights: Any, split: Any, levels: Any, sums: Any, indices: Any) -> Any:
    """Stores the entries of a group; its scale, which changes when some levels had none."""
    there, entries = True, len(x) // 8
    for k in range(entries):
        shift = split.shift if 2 * k < entries else split.other_shift
        indices[k], found = _entry(book, x, weights, 8 * k, split.scale, shift, levels)
        there &= found
    if there:
        return split.scale
    sums[:] = ZERO
    for k in range(entries):
        _add(book, indices[k], x, weights, 8 * k, split.shift if 2 * k < entries else split.other_shift, ONE, sums)
    return sums[0] / sums[1] if sums[0] > ZERO and sums[1] > ZERO else split.scale


@inner
def _three_bits(inverse: float, scale: float) -> Any:
    return clamp(0, 7, nearest(HALF * (inverse * scale - ONE)))


# ---------------------------------------------------------------- IQ1_S


@inner
def _moments(sums: Any, i: int, k: int, shift: float) -> Any:
    """Weighed sums of three runs that stand for -1, 0 and 1, moved by `shift`: those times the values, and those squared."""
    low, middle, high = shift - ONE, shift, shift + ONE
    x, w = sums[0], sums[1]
    n = len(x) - 1
    product = x[i] * low + (x[k] - x[i]) * middle + (x[n] - x[k]) * high
    return product, w[i] * low * low + (w[k] - w[i]) * middle * middle + (w[n] - w[k]) * high * high


@inner
def _split(x: Any, weights: Any, order: Any, sums: Any) -> Any:
    """The borders with the least error where all of the group is moved alike; the first is -1 when there are none."""
    sums[:, 0] = ZERO
    for j in range(32):
        i = order[j]
        sums[0, j + 1] = sums[0, j] + weights[i] * x[i]
        sums[1, j + 1] = sums[1, j] + weights[i]
    best, found = -LARGEST, _Split(-1, -1, ZERO, _SHIFT, _SHIFT)
    for i in range(33):
        for k in range(i, 33):
            for shift in (_SHIFT, -_SHIFT):
                product, square = _moments(sums, i, k, shift)
                if square > ZERO and product * product > best * square:
                    scale = product / square
                    best, found = scale * product, _Split(i, k, scale, shift, shift)
    return found


@encoder
def _encode_iq1_s(values: Any, weights: Any, out: Any, book: Any) -> None:
    sums, fit, scales = np.empty((2, 33), np.float32), np.empty(2, np.float32), np.empty(8, np.float32)
    order, levels, indices, bits = np.empty(32, np.int32), np.empty(32, np.int8), np.empty(4, np.int32), np.empty(8, np.int32)
    for i in range(len(values)):
        block = out[i]
        block[:] = 0
        for group in range(8):
            x, counts = values[i, 32 * group : 32 * group + 32], weights[i, 32 * group : 32 * group + 32]
            scales[group], bits[group] = ZERO, 0
            if _largest(x) < _SMALLEST_S:
                continue
            _sort(x, order)
            split = _split(x, counts, order, sums)
            if split.first < 0:
                continue
            _set_levels(split, order, levels)
            split = _upright(split)
            scales[group] = _settle(book, x, counts, split, levels, fit, indices)
            bits[group] = 8 if split.shift < ZERO else 0
            _store_iq1_s(block, group, indices)
        largest = scales.max()
        if largest > ZERO:
            d = largest / np.float32(15)
            store_half(block, 0, d * np.float32(1.125))
            for group in range(8):
                block[35 + 2 * group] |= (_three_bits(ONE / d, scales[group]) | bits[group]) << 4


@inner
def _store_iq1_s(block: Any, group: int, indices: Any) -> None:
    word = 0
    for k in range(4):
        block[2 + 4 * group + k] = indices[k] & 255
        word |= (indices[k] >> 8) << 3 * k
    block[34 + 2 * group], block[35 + 2 * group] = word & 255, word >> 8


# ---------------------------------------------------------------- IQ1_M


@inner
def _prefixes(x: Any, weights: Any, order: Any, sums: Any) -> None:
    """Of values in ascending order, (2 halves, 2, 17): sums of weighted values and of weights, each half's own."""
    sums[:, :, 0] = ZERO
    for j in range(16):
        i = order[j]
        half = i // 8
        sums[half, 0, j + 1] = sums[half, 0, j] + weights[i] * x[i]
        sums[half, 1, j + 1] = sums[half, 1, j] + weights[i]
        sums[1 - half, :, j + 1] = sums[1 - half, :, j]


@inner
def _half_moments(sums: Any, i: int, k: int, shift: float) -> Any:
    """As `_moments`, of one half; summed up in another order, as llama.cpp does."""
    low, middle, high = shift - ONE, shift, shift + ONE
    x, w = sums[0], sums[1]
    square = w[16] * high * high + w[i] * (low * low - middle * middle) + w[k] * (middle * middle - high * high)
    return x[16] * high - (x[i] + x[k]), square


@inner
def _half_splits(x: Any, weights: Any, order: Any, sums: Any) -> Any:
    """As `_split`, where each half of the group of 16 may be moved its own way."""
    _prefixes(x, weights, order, sums)
    best, found = -LARGEST, _Split(-1, -1, ZERO, _SHIFT, _SHIFT)
    for i in range(17):
        for k in range(i, 17):
            for shift in (_SHIFT, -_SHIFT):
                product, square = _half_moments(sums[0], i, k, shift)
                for other_shift in (_SHIFT, -_SHIFT):
                    other_product, other_square = _half_moments(sums[1], i, k, other_shift)
                    both, squares = product + other_product, square + other_square
                    if squares > ZERO and both * both > best * squares:
                        scale = both / squares
                        best, found = scale * both, _Split(i, k, scale, shift, other_shift)
    return found


@encoder
def _encode_iq1_m(values: Any, weights: Any, out: Any, book: Any) -> None:
    sums, fit, scales = np.empty((2, 2, 17), np.float32), np.empty(2, np.float32), np.empty(16, np.float32)
    order, levels, indices = np.empty(16, np.int32), np.empty(16, np.int8), np.empty((16, 2), np.int32)
    shifts = np.empty((16, 2), np.float32)
    for i in range(len(values)):
        indices[:], shifts[:], scales[:] = 0, _SHIFT, ZERO
        for group in range(16):
            x, counts = values[i, 16 * group : 16 * group + 16], weights[i, 16 * group : 16 * group + 16]
            if _largest(x) < _SMALLEST_M:
                continue
            _sort(x, order)
            split = _half_splits(x, counts, order, sums)
            if split.first < 0:
                continue
            _set_levels(split, order, levels)
            split = _upright(split)
            scales[group] = _settle(book, x, counts, split, levels, fit, indices[group])
            shifts[group, 0], shifts[group, 1] = split.shift, split.other_shift
        _store_iq1_m(book, values[i], weights[i], scales, indices, shifts, fit, out[i])


@inner
def _store_iq1_m(book: Any, x: Any, weights: Any, scales: Any, indices: Any, shifts: Any, sums: Any, block: Any) -> None:
    block[:] = 0
    for group in range(16):
        for k in range(2):
            block[2 * group + k] = indices[group, k] & 255
            block[32 + group] |= (indices[group, k] >> 8) << 4 * k
    largest = scales.max()
    if not largest > ZERO:
        return
    d = largest / np.float32(15)
    inverse = ONE / d
    sums[:] = ZERO
    words = np.zeros(4, np.int32)
    for group in range(16):
        scale = _three_bits(inverse, scales[group])
        words[group // 4] |= scale << 3 * (group % 4)
        for k in range(2):
            block[32 + group] |= (8 if shifts[group, k] < ZERO else 0) << 4 * k
            _add(book, indices[group, k], x, weights, 16 * group + 8 * k, shifts[group, k], np.float32(2 * scale + 1), sums)
    if sums[1] > ZERO:
        d = sums[0] / sums[1]
    bits = half_bits(d * np.float32(1.1125))
    for k in range(4):
        word = words[k] | (bits >> 4 * k & 15) << 12
        block[48 + 2 * k], block[49 + 2 * k] = word & 255, word >> 8


def iq1_s(values: Any, weights: Any, out: Any) -> None:
    """f16 d; 32 lower bytes of indices; eight times two bytes with four times three upper bits, a 3-bit scale and the shift."""
    _encode_iq1_s(values, weights, out, codebook("IQ1_S", 2, 3))


def iq1_m(values: Any, weights: Any, out: Any) -> None:
    """32 lower bytes of indices; 16 bytes with twice three upper bits and the shift; 3-bit scales and f16 d, in four parts."""
    _encode_iq1_m(values, weights, out, codebook("IQ1_S", 2, 3))
