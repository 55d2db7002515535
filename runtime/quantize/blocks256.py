"""Q2_K to Q6_K: super-blocks of 256 with scales for groups that are themselves quantised (ggml-quants.c quantize_row_*_K_ref)."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.quantize.rounding import ONE, TINY, ZERO, clamp, encoder, inner, nearest, store_half
from runtime.quantize.searches import refined_scale, scale_and_min, signed_scale

_FIRST_4, _FIRST_OTHERS = np.float32(-1), np.float32(-0.5)  # where `scale_and_min` begins

# ---------------------------------------------------------------- scale and minimum: Q2_K, Q4_K, Q5_K


@inner
def _search_groups(
    x: Any, top: int, first: float, steps: int, quants: Any, scales: Any, mins: Any, weights: Any, trial: Any
) -> None:
    """Scales, minimums and quants of the groups of 32; values count by their size and the root mean square."""
    for group in range(8):
        part = x[32 * group : 32 * group + 32]
        squares = ZERO
        for i in range(32):
            squares += part[i] * part[i]
        mean = np.sqrt(squares / np.float32(32))
        for i in range(32):
            weights[i] = mean + abs(part[i])
        scales[group], mins[group] = scale_and_min(part, weights, top, quants[32 * group :], trial, first, steps, False)


@inner
def _store_scales(out: Any, scales: Any, mins: Any) -> Any:
    """f16 d, dmin and 12 bytes of 6-bit scales and minimums. Returns d, dmin as stored; the 6-bit ones stay in place."""
    largest, largest_min = max(ZERO, scales.max()), max(ZERO, mins.max())
    top = np.float32(63)
    inverse = top / largest if largest > ZERO else ZERO
    inverse_min = top / largest_min if largest_min > ZERO else ZERO
    for j in range(8):
        scales[j] = np.float32(min(63, nearest(inverse * scales[j]) & 255))
        mins[j] = np.float32(min(63, nearest(inverse_min * mins[j]) & 255))
    for j in range(4):
        scale, low = int(scales[j]), int(mins[j])
        scale4, low4 = int(scales[j + 4]), int(mins[j + 4])
        out[4 + j] = scale | (scale4 >> 4) << 6
        out[8 + j] = low | (low4 >> 4) << 6
        out[12 + j] = (scale4 & 15) | (low4 & 15) << 4
    return store_half(out, 0, largest / top), store_half(out, 2, largest_min / top)


@inner
def _requantize(x: Any, top: int, size: int, d: float, dmin: float, scales: Any, mins: Any, quants: Any) -> None:
    """Quants of groups of `size` for the scales as they are stored. A group whose scale is 0 keeps those of the search."""
    for group in range(len(scales)):
        scale, low = d * scales[group], dmin * mins[group]
        if scale == ZERO:
            continue
        for i in range(size * group, size * group + size):
            quants[i] = clamp(0, top, nearest((x[i] + low) / scale))


@encoder
def q4_k(values: Any, out: Any) -> None:
    """f16 d, dmin; 12 bytes of scales; 128 bytes of nibbles, those of two groups side by side."""
    quants, trial, weights = np.empty(256, np.uint8), np.empty(32, np.uint8), np.empty(32, np.float32)
    scales, mins = np.empty(8, np.float32), np.empty(8, np.float32)
    for i in range(len(values)):
        x, block = values[i], out[i]
        _search_groups(x, 15, _FIRST_4, 20, quants, scales, mins, weights, trial)
        d, dmin = _store_scales(block, scales, mins)
        _requantize(x, 15, 32, d, dmin, scales, mins, quants)
        for j in range(128):
            low = j // 32 * 64 + j % 32
            block[16 + j] = quants[low] | quants[low + 32] << 4


@encoder
def q5_k(values: Any, out: Any) -> None:
    """f16 d, dmin; 12 bytes of scales; 32 bytes of fifth bits, one a group; 128 bytes of nibbles."""
    quants, trial, weights = np.empty(256, np.uint8), np.empty(32, np.uint8), np.empty(32, np.float32)
    scales, mins = np.empty(8, np.float32), np.empty(8, np.float32)
    for i in range(len(values)):
        x, block = values[i], out[i]
        _search_groups(x, 31, _FIRST_OTHERS, 15, quants, scales, mins, weights, trial)
        d, dmin = _store_scales(block, scales, mins)
        _requantize(x, 31, 32, d, dmin, scales, mins, quants)
        for j in range(32):
            bits = 0
            for group in range(8):
                bits |= (quants[32 * group + j] >> 4) << group
            block[16 + j] = bits
        for j in range(128):
            low = j // 32 * 64 + j % 32
            block[48 + j] = (quants[low] & 15) | (quants[low + 32] & 15) << 4


@encoder
def q2_k(values: Any, out: Any) -> None:
    """16 bytes with a 4-bit scale and minimum for each 16 values; 64 bytes of crumbs; f16 d, dmin."""
    quants, trial, weights = np.empty(256, np.uint8), np.empty(16, np.uint8), np.empty(16, np.float32)
    scales, mins = np.empty(16, np.float32), np.empty(16, np.float32)
    top = np.float32(15)
    for i in range(len(values)):
        x, block = values[i], out[i]
        for group in range(16):
            part = x[16 * group : 16 * group + 16]
            for j in range(16):
                weights[j] = abs(part[j])
            scales[group], mins[group] = scale_and_min(part, weights, 3, quants[16 * group :], trial, _FIRST_OTHERS, 15, True)
        largest, largest_min = max(ZERO, scales.max()), max(ZERO, mins.max())
        inverse = top / largest if largest > ZERO else ZERO
        inverse_min = top / largest_min if largest_min > ZERO else ZERO
        for group in range(16):
            scale = nearest(inverse * scales[group]) & 255
            packed = (scale | nearest(inverse_min * mins[group]) << 4) & 255
            scales[group], mins[group] = np.float32(packed & 15), np.float32(packed >> 4)
            block[group] = packed
        d, dmin = store_half(block, 80, largest / top), store_half(block, 82, largest_min / top)
        _requantize(x, 3, 16, d, dmin, scales, mins, quants)
        _store_crumbs(block[16:], quants, 3)


# ---------------------------------------------------------------- scale alone: Q3_K, Q6_K


@inner
def _store_crumbs(out: Any, quants: Any, mask: int) -> None:
    """Two bits of each value: those of four values 32 apart in a byte."""
    for j in range(64):
        at = j // 32 * 128 + j % 32
        out[j] = (
            (quants[at] & mask) | (quants[at + 32] & mask) << 2 | (quants[at + 64] & mask) << 4 | (quants[at + 96] & mask) << 6
        )


@inner
def _farthest(scales: Any) -> Any:
    """The scale that is farthest from zero, with its sign; of several the first."""
    value = ZERO
    for scale in scales:
        if abs(scale) > abs(value):
            value = scale
    return value


@inner
def _requantize_signed(x: Any, top: int, d: float, scales: Any, quants: Any) -> None:
    for group in range(16):
        scale = d * scales[group]
        if scale == ZERO:
            continue
        for i in range(16 * group, 16 * group + 16):
            quants[i] = top + clamp(-top, top - 1, nearest(x[i] / scale))


@inner
def _store_q3_scales(out: Any, scales: Any) -> Any:
    """12 bytes of 6-bit scales and f16 d at 108; leaves the scales in `scales`, and returns d as stored."""
    value = _farthest(scales)
    out[96:108] = 0
    if value == ZERO:
        for j in range(16):
            scales[j] = np.float32(-32)
        return store_half(out, 108, ZERO)
    inverse = np.float32(-32) / value
    for j in range(16):
        scale = clamp(-32, 31, nearest(inverse * scales[j]))
        scales[j] = np.float32(scale)
        out[96 + j % 8] |= ((scale + 32) & 15) << 4 * (j // 8)
        out[104 + j % 4] |= ((scale + 32) >> 4) << 2 * (j // 4)
    return store_half(out, 108, ONE / inverse)


@encoder
def q3_k(values: Any, out: Any) -> None:
    """32 bytes of third bits; 64 bytes of crumbs; 12 bytes of scales, one for each 16 values; f16 d."""
    quants, scales = np.empty(256, np.uint8), np.empty(16, np.float32)
    for i in range(len(values)):
        x, block = values[i], out[i]
        for group in range(16):
            scales[group] = refined_scale(x[16 * group : 16 * group + 16], 4, quants[16 * group :])
        d = _store_q3_scales(block, scales)
        _requantize_signed(x, 4, d, scales, quants)
        for j in range(32):
            bits = 0
            for group in range(8):
                bits |= (quants[32 * group + j] >> 2) << group
            block[j] = bits
        _store_crumbs(block[32:], quants, 3)


@encoder
def q6_k(values: Any, out: Any) -> None:
    """128 bytes of low nibbles; 64 bytes of high crumbs; 16 signed bytes of scales; f16 d."""
    quants, high, scales = np.empty(256, np.uint8), np.empty(256, np.uint8), np.empty(16, np.float32)
    for i in range(len(values)):
        x, block = values[i], out[i]
        for group in range(16):
            scales[group] = signed_scale(x[16 * group : 16 * group + 16], 32, quants[16 * group :])
        value = _farthest(scales)
        if abs(value) < TINY:
            block[:] = 0
            continue
        inverse = np.float32(-128) / value
        for group in range(16):
            scale = min(127, nearest(inverse * scales[group]))
            scales[group] = np.float32(scale)
            block[192 + group] = scale & 255
        d = store_half(block, 208, ONE / inverse)
        _requantize_signed(x, 32, d, scales, quants)
        for j in range(128):
            at = j // 64 * 128 + j % 64
            block[j] = (quants[at] & 15) | (quants[at + 64] & 15) << 4
        for j in range(256):
            high[j] = quants[j] >> 4
        _store_crumbs(block[128:], high, 3)
