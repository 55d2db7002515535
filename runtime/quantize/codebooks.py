"""IQ2 and IQ3: magnitudes from a codebook, and signs (ggml-quants.c quantize_row_iq3_s_impl and its likes)."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.quantize.codebook import codebook
from runtime.quantize.codebook_search import Rules, number_of, scratch, search
from runtime.quantize.refine import positive_scale
from runtime.quantize.rounding import HALF, ONE, TINY, ZERO, clamp, encoder, inner, nearest, store_half

_SMALLEST = np.float32(1e-8)  # groups of IQ3_XXS and IQ2_S below it are zeros
_IQ3_S = Rules(4, 3, 7, 9, np.float32(0.2), True, False)
_IQ3_XXS = Rules(4, 3, 7, 15, np.float32(0.2), False, False)
_IQ2_S = Rules(8, 2, 2, 9, np.float32(0.1), False, False)
_IQ2_XXS = Rules(8, 2, 2, 6, np.float32(0.1), True, True)

# ---------------------------------------------------------------- what types share


@inner
def _signs(x: Any, magnitudes: Any) -> Any:
    """Magnitudes of eight values; a bit for each that is negative."""
    bits = 0
    for i in range(8):
        magnitudes[i] = x[i] if x[i] >= ZERO else -x[i]
        bits |= (0 if x[i] >= ZERO else 1) << i
    return bits


@inner
def _even_signs(x: Any, weights: Any, magnitudes: Any) -> Any:
    """As `_signs`, with an even number of bits, so that seven of them will do: the value that counts least gets a wrong sign."""
    bits = _signs(x, magnitudes)
    odd, least = 0, 0
    for i in range(8):
        odd ^= bits >> i & 1
        if weights[i] * x[i] * x[i] < weights[least] * x[least] * x[least]:
            least = i
    if odd:
        magnitudes[least] = -magnitudes[least]
        bits ^= 1 << least
    return bits & 127


@inner
def _take(x: Any, weights: Any, s: Any) -> Any:
    """Magnitudes and weights of a group; 7 bits of signs for each eight values."""
    signs = 0
    for k in range(len(x) // 8):
        first = 8 * k
        s.weights[first : first + 8] = weights[first : first + 8]
        signs |= _even_signs(x[first : first + 8], weights[first : first + 8], s.x[first : first + 8]) << 7 * k
    return signs


@inner
def _upright(scale: float, signs: int, count: int) -> Any:
    """A scale that is not negative, and the signs that go with it, of `count` bits."""
    return (-scale, signs ^ ((1 << count) - 1)) if scale < ZERO else (scale, signs)


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


@inner
def _plain_scale(x: Any, top: int) -> Any:
    return x.max() / np.float32(2 * top + 1)


@inner
def _store_words(block: Any, at: int, words: Any, scales: Any, inverse: float, stride: int) -> None:
    """Of each group a word: signs, and the 4-bit scale above them."""
    for group in range(8):
        word = words[group] | _four_bits(inverse, scales[group]) << 28
        for k in range(4):
            block[at + stride * group + k] = word >> 8 * k & 255


# ---------------------------------------------------------------- the types


@encoder
def _encode_iq3_s(values: Any, weights: Any, out: Any, book: Any) -> None:
    s, scales = scratch(32), np.empty(8, np.float32)
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
            s.weights[:] = weights[i, 32 * group : 32 * group + 32]
            scales[group] = search(book, _IQ3_S, s, s.x.max(), _plain_scale(s.x, 7))
            for k in range(8):
                index = book.entry[number_of(s.levels, 4 * k, 4, 3)]
                block[2 + 8 * group + k] = index & 255
                block[66 + group] |= (index >> 8) << k
        inverse = _block_scale(block, scales, np.float32(1.033))
        for group in range(8):
            block[106 + group // 2] |= (_four_bits(inverse, scales[group]) if inverse > ZERO else 0) << 4 * (group % 2)


@encoder
def _encode_iq3_xxs(values: Any, weights: Any, out: Any, book: Any) -> None:
    s, scales, words = scratch(32), np.empty(8, np.float32), np.empty(8, np.int64)
    for i in range(len(values)):
        block = out[i]
        block[:] = 0
        for group in range(8):
            words[group], scales[group], first = 0, ZERO, 32 * group
            signs = _take(values[i, first : first + 32], weights[i, first : first + 32], s)
            if s.x.max() < _SMALLEST:
                continue
            scale = search(book, _IQ3_XXS, s, s.x.max(), _plain_scale(s.x, 7))
            scales[group], words[group] = _upright(scale, signs, 28)
            for k in range(8):
                block[2 + 8 * group + k] = book.entry[number_of(s.levels, 4 * k, 4, 3)]
        inverse = _block_scale(block, scales, np.float32(1.0125))
        if inverse == ZERO:
            block[:] = 0
        else:
            _store_words(block, 66, words, scales, inverse, 4)


@encoder
def _encode_iq2_s(values: Any, weights: Any, out: Any, book: Any) -> None:
    s, scales = scratch(16), np.empty(16, np.float32)
    for i in range(len(values)):
        block = out[i]
        block[:] = 0
        for group in range(16):
            scales[group] = ZERO
            signs = np.int32(0)
            for k in range(2):
                first = 16 * group + 8 * k
                signs |= _signs(values[i, first : first + 8], s.x[8 * k : 8 * k + 8]) << 8 * k
            if s.x.max() < _SMALLEST:
                continue
            s.weights[:] = weights[i, 16 * group : 16 * group + 16]
            scales[group] = search(book, _IQ2_S, s, s.x.max(), _plain_scale(s.x, 2))
            for k in range(2):
                index = book.entry[number_of(s.levels, 8 * k, 8, 2)]
                at = 2 * group + k
                block[2 + at] = index & 255
                block[34 + at] = signs >> 8 * k & 255
                block[66 + at // 4] |= (index >> 8) << 2 * (at % 4)
        inverse = _block_scale(block, scales, np.float32(0.9875))
        for group in range(16):
            block[74 + group // 2] |= (_four_bits(inverse, scales[group]) if inverse > ZERO else 0) << 4 * (group % 2)


@encoder
def _encode_iq2_xs(values: Any, weights: Any, out: Any, book: Any) -> None:
    s, scales = scratch(16), np.empty(16, np.float32)
    for i in range(len(values)):
        block = out[i]
        block[:] = 0
        for group in range(16):
            scales[group], first = ZERO, 16 * group
            signs = _take(values[i, first : first + 16], weights[i, first : first + 16], s)
            if s.x.max() < TINY:
                continue
            scale = search(book, _IQ2_S, s, s.x.max(), _plain_scale(s.x, 2))
            scales[group], signs = _upright(scale, signs, 14)
            for k in range(2):
                word = book.entry[number_of(s.levels, 8 * k, 8, 2)] | (signs >> 7 * k & 127) << 9
                block[2 + 4 * group + 2 * k], block[3 + 4 * group + 2 * k] = word & 255, word >> 8
        inverse = _block_scale(block, scales, ONE)
        if inverse == ZERO:
            block[:] = 0
            continue
        for group in range(16):
            block[66 + group // 2] |= _four_bits(inverse, scales[group]) << 4 * (group % 2)


@encoder
def _encode_iq2_xxs(values: Any, weights: Any, out: Any, book: Any) -> None:
    s, scales, words, quants = scratch(32), np.empty(8, np.float32), np.empty(8, np.int64), np.empty(32, np.uint8)
    for i in range(len(values)):
        block = out[i]
        block[:] = 0
        for group in range(8):
            words[group], scales[group], first = 0, ZERO, 32 * group
            signs = _take(values[i, first : first + 32], weights[i, first : first + 32], s)
            start = positive_scale(s.x, s.weights, 4, quants) if s.x.max() >= TINY else ZERO
            if start * np.float32(3) <= ZERO:
                continue
            scale = search(book, _IQ2_XXS, s, start * np.float32(3), start)
            scales[group], words[group] = _upright(scale, signs, 28)
            for k in range(4):
                block[2 + 8 * group + k] = book.entry[number_of(s.levels, 8 * k, 8, 2)]
        inverse = _block_scale(block, scales, ONE)
        if inverse == ZERO:
            block[:] = 0
        else:
            _store_words(block, 6, words, scales, inverse, 8)


def iq3_s(values: Any, weights: Any, out: Any) -> None:
    """f16 d; 64 indices; their ninth bits; signs; 4-bit scales."""
    _encode_iq3_s(values, weights, out, codebook("IQ3_S", 3, 3))


def iq3_xxs(values: Any, weights: Any, out: Any) -> None:
    """f16 d; 64 indices; for each group a word of four times 7 bits of signs and a 4-bit scale."""
    _encode_iq3_xxs(values, weights, out, codebook("IQ3_XXS", 3, 2))


def iq2_s(values: Any, weights: Any, out: Any) -> None:
    """f16 d; 32 lower bytes of indices; signs; upper bits of the indices; 4-bit scales."""
    _encode_iq2_s(values, weights, out, codebook("IQ2_S", 2, 1))


def iq2_xs(values: Any, weights: Any, out: Any) -> None:
    """f16 d; 32 times two bytes with an index and 7 bits of signs; 4-bit scales."""
    _encode_iq2_xs(values, weights, out, codebook("IQ2_XS", 2, 2))


def iq2_xxs(values: Any, weights: Any, out: Any) -> None:
    """f16 d; for each group four indices and a word as in IQ3_XXS."""
    _encode_iq2_xxs(values, weights, out, codebook("IQ2_XXS", 2, 2))
