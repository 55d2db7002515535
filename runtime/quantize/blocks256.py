"""Q2_K to Q5_K without an importance matrix, and Q6_K: super-blocks of 256 with scales for groups that are themselves
quantised (ggml-quants.c quantize_row_*_K_ref, quantize_row_q6_K_impl).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.quantize.lanes import LANES, TIER, scale_and_min
from runtime.quantize.layout256 import (
    give,
    requantize,
    requantize_signed,
    scratch,
    store_bits,
    store_crumbs,
    store_nibbles,
    store_q3_scales,
    store_six_bits,
    take,
)
from runtime.quantize.refine import refined_scale
from runtime.quantize.rounding import ONE, TINY, ZERO, clamp, encoder, inner, nearest, store_half
from runtime.quantize.signed_lanes import even_scales

# ---------------------------------------------------------------- scale and minimum: Q2_K, Q4_K, Q5_K


@inner
def _weigh(x: Any, weights: Any, squares: Any) -> None:
    """Values count by their size and the root mean square of their group of 32."""
    squares[:] = ZERO
    for i in range(32):
        for lane in range(LANES):
            squares[lane] += x[i, lane] * x[i, lane]
    for lane in range(LANES):
        squares[lane] = np.sqrt(squares[lane] / np.float32(32))
    for i in range(32):
        for lane in range(LANES):
            weights[i, lane] = squares[lane] + abs(x[i, lane])


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
    store_six_bits(out[4:], scales, mins)
    return store_half(out, 0, largest / top), store_half(out, 2, largest_min / top)


@encoder
def q4_k(values: Any, out: Any) -> None:
    """f16 d, dmin; 12 bytes of scales; 128 bytes of nibbles, those of two groups side by side."""
    quants, found, both, squares = scratch()
    x, weights, trial = found[:32], found[32:64], found[64:]
    for pair in range(0, len(values), 2):
        take(values, pair, 32, x)
        _weigh(x, weights, squares)
        scale_and_min(TIER, 32, 15, -100, 10, 20, False, x.ctypes.data, weights.ctypes.data, trial.ctypes.data, both.ctypes.data)
        for half in range(min(2, len(values) - pair)):
            block, scales, mins = out[pair + half], both[0, 8 * half : 8 * half + 8], both[1, 8 * half : 8 * half + 8]
            give(trial, 8 * half, 32, quants)
            d, dmin = _store_scales(block, scales, mins)
            requantize(values[pair + half], 15, 32, d, dmin, scales, mins, quants)
            store_nibbles(block[16:], quants)


@encoder
def q5_k(values: Any, out: Any) -> None:
    """f16 d, dmin; 12 bytes of scales; 32 bytes of fifth bits, one a group; 128 bytes of nibbles."""
    quants, found, both, squares = scratch()
    x, weights, trial = found[:32], found[32:64], found[64:]
    for pair in range(0, len(values), 2):
        take(values, pair, 32, x)
        _weigh(x, weights, squares)
        scale_and_min(TIER, 32, 31, -50, 10, 15, False, x.ctypes.data, weights.ctypes.data, trial.ctypes.data, both.ctypes.data)
        for half in range(min(2, len(values) - pair)):
            block, scales, mins = out[pair + half], both[0, 8 * half : 8 * half + 8], both[1, 8 * half : 8 * half + 8]
            give(trial, 8 * half, 32, quants)
            d, dmin = _store_scales(block, scales, mins)
            requantize(values[pair + half], 31, 32, d, dmin, scales, mins, quants)
            store_bits(block[16:], quants, 4)
            store_nibbles(block[48:], quants)


@inner
def _store_packed_scales(block: Any, scales: Any, mins: Any) -> Any:
    """16 bytes of 4-bit scales and minimums, and f16 d, dmin at 80. Returns d, dmin as stored; the 4-bit ones stay in place."""
    top, largest, largest_min = np.float32(15), max(ZERO, scales.max()), max(ZERO, mins.max())
    inverse = top / largest if largest > ZERO else ZERO
    inverse_min = top / largest_min if largest_min > ZERO else ZERO
    for group in range(16):
        packed = (nearest(inverse * scales[group]) & 255 | nearest(inverse_min * mins[group]) << 4) & 255
        scales[group], mins[group] = np.float32(packed & 15), np.float32(packed >> 4)
        block[group] = packed
    return store_half(block, 80, largest / top), store_half(block, 82, largest_min / top)


@encoder
def q2_k(values: Any, out: Any) -> None:
    """16 bytes with a 4-bit scale and minimum for each 16 values; 64 bytes of crumbs; f16 d, dmin."""
    quants, found, both, _ = scratch()
    x, weights, trial = found[:16], found[32:48], found[64:96]
    for i in range(len(values)):
        take(values, i, 16, x)
        for j in range(16):
            for lane in range(LANES):
                weights[j, lane] = abs(x[j, lane])
        scale_and_min(TIER, 16, 3, -50, 10, 15, True, x.ctypes.data, weights.ctypes.data, trial.ctypes.data, both.ctypes.data)
        give(trial, 0, 16, quants)
        d, dmin = _store_packed_scales(out[i], both[0], both[1])
        requantize(values[i], 3, 16, d, dmin, both[0], both[1], quants)
        store_crumbs(out[i, 16:], quants)


# ---------------------------------------------------------------- scale alone: Q3_K, Q6_K


@inner
def _farthest(scales: Any) -> Any:
    """The scale that is farthest from zero, with its sign; of several the first."""
    value = ZERO
    for scale in scales:
        if abs(scale) > abs(value):
            value = scale
    return value


@inner
def _store_q3_scales(out: Any, scales: Any) -> Any:
    """12 bytes of 6-bit scales and f16 d at 108; leaves the scales in `scales`, and returns d as stored."""
    value = _farthest(scales)
    if value == ZERO:
        out[96:108] = 0
        scales[:] = np.float32(-32)
        return store_half(out, 108, ZERO)
    inverse = np.float32(-32) / value
    for j in range(16):
        scales[j] = np.float32(clamp(-32, 31, nearest(inverse * scales[j])))
    store_q3_scales(out[96:], scales)
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
        requantize_signed(x, 4, d, scales, quants)
        store_bits(block, quants, 2)
        store_crumbs(block[32:], quants)


@encoder
def q6_k(values: Any, weights: Any, out: Any) -> None:
    """128 bytes of low nibbles; 64 bytes of high crumbs; 16 signed bytes of scales; f16 d."""
    quants, high, scales = np.empty(256, np.uint8), np.empty(256, np.uint8), np.empty(16, np.float32)
    lanes, counts, inverses = np.empty((16, LANES), np.float32), np.empty((16, LANES), np.float32), np.empty(16, np.float32)
    for i in range(len(values)):
        x, block = values[i], out[i]
        take(values, i, 16, lanes)
        take(weights, i, 16, counts)
        even_scales(TIER, 16, 32, 9, lanes.ctypes.data, counts.ctypes.data, scales.ctypes.data, inverses.ctypes.data)
        for j in range(256):
            quant = 32 + clamp(-32, 31, nearest(inverses[j // 16] * x[j]))
            quants[j] = quant if inverses[j // 16] != ZERO else 0
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
        requantize_signed(x, 32, d, scales, quants)
        for j in range(128):
            at = j // 64 * 128 + j % 64
            block[j] = (quants[at] & 15) | (quants[at + 64] & 15) << 4
        for j in range(256):
            high[j] = quants[j] >> 4
        store_crumbs(block[128:], high)
