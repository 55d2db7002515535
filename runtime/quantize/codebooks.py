"""IQ3_S, IQ3_XXS and IQ2_S: magnitudes from a codebook, and signs (ggml-quants.c quantize_row_iq3_s_impl and its likes).

Without an importance matrix a value counts by its square. A point that is not in the codebook goes to the entry, of those
nearest to it, that leaves the least error.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from runtime.quantize.codebook import codebook
from runtime.quantize.rounding import HALF, LARGEST, ONE, ZERO, clamp, encoder, inlined, inner, nearest, store_half

_SMALLEST = np.float32(1e-8)  # groups of IQ3_XXS below it are zeros

# ---------------------------------------------------------------- a point
# A slice of an array costs more than the arithmetic on it, so `first` says where an entry's values begin.


@inlined
def _number(levels: Any, first: int, width: int, bits: int) -> Any:
    """The number of the point that an entry's levels are."""
    number = np.int32(0)
    for i in range(width):
        number |= np.int32(levels[first + i]) << (bits * i)
    return number


@inlined
def _place(book: Any, rules: Any, x: Any, roots: Any, first: int, inverse: float, scale: float, levels: Any) -> bool:
    """Rounds the values of one entry, to levels that each stand for 2 level + 1, and moves them to the codebook; whether they
    were there. `roots` of the weights weigh the error of a neighbour."""
    width = rules.width
    for i in range(first, first + width):
        levels[i] = clamp(0, rules.top, nearest(HALF * (inverse * x[i] - ONE)))
    index = book.entry[_number(levels, first, width, rules.bits)]
    if index >= 0:
        return True
    best, error = np.int16(0), LARGEST
    for at in range(book.starts[-1 - index], book.starts[-index]):
        other, total = book.neighbours[at], ZERO
        for i in range(width):
            diff = scale * np.float32(2 * book.levels[other, i] + 1) - x[first + i]
            total += roots[first + i] * diff * diff
        if total < error:
            best, error = other, total
    for i in range(width):
        levels[first + i] = book.levels[best, i]
    return False


@inlined
def _fit(x: Any, weights: Any, levels: Any) -> Any:
    sum_qx = sum_q2 = ZERO
    for i in range(len(x)):
        value = np.float32(2 * levels[i] + 1)
        product = weights[i] * value
        sum_qx += weights[i] * x[i] * value
        sum_q2 += product * value
    return sum_qx, sum_q2


# ---------------------------------------------------------------- a group


class Rules(NamedTuple):
    """How a type's groups are searched."""

    width: int  # values of an entry
    bits: int  # of a place
    top: int  # the highest level
    tries: int  # scales on each side of the plain one
    step: Any  # between two of them
    again: bool  # points that have an entry are rounded anew at the end too


class Scratch(NamedTuple):
    """Memory for one group."""

    x: Any
    weights: Any
    roots: Any
    levels: Any
    trial: Any
    on_grid: Any
    trial_on_grid: Any


@inner
def _scratch(count: int) -> Any:
    floats, levels, flags = np.empty((3, count), np.float32), np.empty((2, count), np.int8), np.empty((2, 8), np.bool_)
    return Scratch(floats[0], floats[1], floats[2], levels[0], levels[1], flags[0], flags[1])


@inlined
def _search(book: Any, rules: Any, s: Any) -> Any:
    """The scale of the group of magnitudes `s.x` with `s.weights`; its levels are left in `s.levels`."""
    x, weights, roots, trial, on_grid = s.x, s.weights, s.roots, s.trial, s.trial_on_grid
    width, count = rules.width, len(x)
    largest, most = x.max(), np.float32(2 * rules.top + 1)
    scale, best = largest / most, ZERO
    s.levels[:] = 0
    s.on_grid[:] = not rules.again
    for i in range(count):
        roots[i] = np.sqrt(weights[i])
    for step in range(-rules.tries, rules.tries + 1):
        inverse = (most + np.float32(step) * rules.step) / largest
        for k in range(count // width):
            on_grid[k] = _place(book, rules, x, roots, k * width, inverse, ONE / inverse, trial)
        sum_qx, sum_q2 = _fit(x, weights, trial)
        if sum_q2 > ZERO and sum_qx * sum_qx > best * sum_q2:
            scale = sum_qx / sum_q2
            best = scale * sum_qx
            s.levels[:] = trial
            s.on_grid[:] = on_grid
    return _settled(book, rules, s, scale)


@inlined
def _settled(book: Any, rules: Any, s: Any, scale: float) -> Any:
    """The scale, once what lay off the codebook has been moved again with the scale that was found."""
    width = rules.width
    entries = len(s.x) // width
    if not scale > ZERO or s.on_grid[:entries].all():
        return scale
    for k in range(entries):
        if rules.again or not s.on_grid[k]:
            _place(book, rules, s.x, s.roots, k * width, ONE / scale, scale, s.levels)
    sum_qx, sum_q2 = _fit(s.x, s.weights, s.levels)
    return sum_qx / sum_q2 if sum_q2 > ZERO else scale


# ---------------------------------------------------------------- blocks

_IQ3_S = Rules(4, 3, 7, 9, np.float32(0.2), True)
_IQ3_XXS = Rules(4, 3, 7, 15, np.float32(0.2), False)
_IQ2_S = Rules(8, 2, 2, 9, np.float32(0.1), False)


@inner
def _signs(x: Any, magnitudes: Any) -> Any:
    """Magnitudes of eight values; a bit for each that is negative."""
    bits = 0
    for i in range(8):
        magnitudes[i] = x[i] if x[i] >= ZERO else -x[i]
        bits |= (0 if x[i] >= ZERO else 1) << i
    return bits


@inner
def _even_signs(x: Any, magnitudes: Any) -> Any:
    """As `_signs`, with an even number of bits, so that seven of them will do: the value that counts least gets a wrong sign."""
    bits = _signs(x, magnitudes)
    odd, least = 0, 0
    for i in range(8):
        odd ^= bits >> i & 1
        if x[i] * x[i] * x[i] * x[i] < x[least] * x[least] * x[least] * x[least]:
            least = i
    if odd:
        magnitudes[least] = -magnitudes[least]
        bits ^= 1 << least
    return bits & 127


@inner
def _block_scale(out: Any, scales: Any, factor: float) -> Any:
    """f16 d for scales of 4 bits, 2 scale + 1; returns 1 / d, 0 when all is zero."""
    largest = scales.max()
    if largest == ZERO:
        store_half(out, 0, ZERO)
        return ZERO
    d = largest / np.float32(31)
    store_half(out, 0, d * factor)
    return ONE / d


@inner
def _four_bits(inverse: float, scale: float) -> Any:
    return clamp(0, 15, nearest(HALF * (inverse * scale - ONE)))


@encoder
def _encode_iq3_s(values: Any, out: Any, book: Any) -> None:
    s, scales = _scratch(32), np.empty(8, np.float32)
    for i in range(len(values)):
        block = out[i]
        block[:] = 0
        for group in range(8):
            for k in range(4):
                first = 32 * group + 8 * k
                block[74 + 4 * group + k] = _signs(values[i, first : first + 8], s.x[8 * k : 8 * k + 8])
            scales[group] = ZERO
            if s.x.max() == ZERO:
                continue
            s.weights[:] = s.x * s.x
            scales[group] = _search(book, _IQ3_S, s)
            for k in range(8):
                index = book.entry[_number(s.levels, 4 * k, 4, 3)]
                block[2 + 8 * group + k] = index & 255
                block[66 + group] |= (index >> 8) << k
        inverse = _block_scale(block, scales, np.float32(1.033))
        for group in range(8):
            block[106 + group // 2] |= (_four_bits(inverse, scales[group]) if inverse > ZERO else 0) << 4 * (group % 2)


@encoder
def _encode_iq3_xxs(values: Any, out: Any, book: Any) -> None:
    s, scales, words = _scratch(32), np.empty(8, np.float32), np.empty(8, np.int64)
    for i in range(len(values)):
        block = out[i]
        block[:] = 0
        for group in range(8):
            words[group], scales[group] = 0, ZERO
            signs = 0
            for k in range(4):
                first = 32 * group + 8 * k
                signs |= _even_signs(values[i, first : first + 8], s.x[8 * k : 8 * k + 8]) << 7 * k
            if s.x.max() < _SMALLEST:
                continue
            s.weights[:] = s.x * s.x
            scales[group] = _search(book, _IQ3_XXS, s)
            words[group] = signs
            for k in range(8):
                block[2 + 8 * group + k] = book.entry[_number(s.levels, 4 * k, 4, 3)]
        inverse = _block_scale(block, scales, np.float32(1.0125))
        if inverse == ZERO:
            block[:] = 0
            continue
        for group in range(8):
            word = words[group] | _four_bits(inverse, scales[group]) << 28
            for k in range(4):
                block[66 + 4 * group + k] = word >> 8 * k & 255


@encoder
def _encode_iq2_s(values: Any, out: Any, book: Any) -> None:
    s, scales = _scratch(16), np.empty(16, np.float32)
    for i in range(len(values)):
        block, squares = out[i], ZERO
        block[:] = 0
        for j in range(256):
            squares += values[i, j] * values[i, j]
        spread = np.float32(0.25) * (np.float32(2) * squares / np.float32(256))
        for group in range(16):
            scales[group] = ZERO
            signs = np.int32(0)
            for k in range(2):
                first = 16 * group + 8 * k
                signs |= _signs(values[i, first : first + 8], s.x[8 * k : 8 * k + 8]) << 8 * k
            if s.x.max() < _SMALLEST:
                continue
            s.weights[:] = spread + s.x * s.x
            scales[group] = _search(book, _IQ2_S, s)
            for k in range(2):
                index = book.entry[_number(s.levels, 8 * k, 8, 2)]
                at = 2 * group + k
                block[2 + at] = index & 255
                block[34 + at] = signs >> 8 * k & 255
                block[66 + at // 4] |= (index >> 8) << 2 * (at % 4)
        inverse = _block_scale(block, scales, np.float32(0.9875))
        for group in range(16):
            block[74 + group // 2] |= (_four_bits(inverse, scales[group]) if inverse > ZERO else 0) << 4 * (group % 2)


def iq3_s(values: Any, out: Any) -> None:
    """f16 d; 64 indices; their ninth bits; signs; 4-bit scales."""
    _encode_iq3_s(values, out, codebook("IQ3_S", 3, 3))


def iq3_xxs(values: Any, out: Any) -> None:
    """f16 d; 64 indices; for each group a word of four times 7 bits of signs and a 4-bit scale."""
    _encode_iq3_xxs(values, out, codebook("IQ3_XXS", 3, 2))


def iq2_s(values: Any, out: Any) -> None:
    """f16 d; 32 lower bytes of indices; signs; upper bits of the indices; 4-bit scales."""
    _encode_iq2_s(values, out, codebook("IQ2_S", 2, 1))
