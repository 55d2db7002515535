"""Q2_K to Q5_K with an importance matrix (ggml-quants.c quantize_row_*_K_impl)."""

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
from runtime.quantize.refine import positive_scale
from runtime.quantize.rounding import ZERO, clamp, encoder, inner, nearest, store_half
from runtime.quantize.signed_lanes import even_scales


@inner
def _sums(weights: Any, sums: Any) -> None:
    """Of each lane of (size, 16)."""
    sums[:] = ZERO
    for i in range(len(weights)):
        for lane in range(LANES):
            sums[lane] += weights[i, lane]


@inner
def _scale_of(scales: Any, sums: Any, top: int, quants: Any) -> Any:
    """The scale of scales or minimums, which become its multiples from 0 to `top`."""
    scale = positive_scale(scales, sums, top, quants)
    for j in range(len(scales)):
        scales[j] = np.float32(quants[j])
    return scale


@inner
def _store_scales(out: Any, scales: Any, mins: Any, sums: Any, quants: Any) -> Any:
    """f16 d, dmin and 12 bytes of 6-bit scales and minimums. Returns d, dmin as stored; the 6-bit ones stay in place."""
    d, dmin = _scale_of(scales, sums, 63, quants), _scale_of(mins, sums, 63, quants)
    for j in range(8):
        scales[j], mins[j] = min(np.float32(63), scales[j]), min(np.float32(63), mins[j])
    store_six_bits(out[4:], scales, mins)
    return store_half(out, 0, d), store_half(out, 2, dmin)


@encoder
def q4_k(values: Any, counts: Any, out: Any) -> None:
    """As `blocks256.q4_k`."""
    quants, found, both, sums = scratch()
    x, weights, trial = found[:32], found[32:64], found[64:]
    for pair in range(0, len(values), 2):
        take(values, pair, 32, x)
        take(counts, pair, 32, weights)
        _sums(weights, sums)
        scale_and_min(TIER, 32, 15, -90, 5, 36, False, x.ctypes.data, weights.ctypes.data, trial.ctypes.data, both.ctypes.data)
        for half in range(min(2, len(values) - pair)):
            block, lanes = out[pair + half], slice(8 * half, 8 * half + 8)
            scales, mins = both[0, lanes], both[1, lanes]
            d, dmin = _store_scales(block, scales, mins, sums[lanes], quants)
            give(trial, 8 * half, 32, quants)
            requantize(values[pair + half], 15, 32, d, dmin, scales, mins, quants)
            store_nibbles(block[16:], quants)


@encoder
def q5_k(values: Any, counts: Any, out: Any) -> None:
    """As `blocks256.q5_k`."""
    quants, found, both, sums = scratch()
    x, weights, trial = found[:32], found[32:64], found[64:]
    for pair in range(0, len(values), 2):
        take(values, pair, 32, x)
        take(counts, pair, 32, weights)
        _sums(weights, sums)
        scale_and_min(TIER, 32, 31, -90, 5, 36, False, x.ctypes.data, weights.ctypes.data, trial.ctypes.data, both.ctypes.data)
        for half in range(min(2, len(values) - pair)):
            block, lanes = out[pair + half], slice(8 * half, 8 * half + 8)
            scales, mins = both[0, lanes], both[1, lanes]
            d, dmin = _store_scales(block, scales, mins, sums[lanes], quants)
            give(trial, 8 * half, 32, quants)
            requantize(values[pair + half], 31, 32, d, dmin, scales, mins, quants)
            store_bits(block[16:], quants, 4)
            store_nibbles(block[48:], quants)


@encoder
def q2_k(values: Any, counts: Any, out: Any) -> None:
    """As `blocks256.q2_k`."""
    quants, found, both, sums = scratch()
    x, weights, trial = found[:16], found[32:48], found[64:96]
    for i in range(len(values)):
        take(values, i, 16, x)
        take(counts, i, 16, weights)
        _sums(weights, sums)
        scale_and_min(TIER, 16, 3, -90, 5, 36, False, x.ctypes.data, weights.ctypes.data, trial.ctypes.data, both.ctypes.data)
        block, scales, mins = out[i], both[0], both[1]
        d = store_half(block, 80, _scale_of(scales, sums, 15, quants))
        dmin = store_half(block, 82, _scale_of(mins, sums, 15, quants))
        for group in range(16):
            packed = np.uint8(np.uint8(scales[group]) | np.uint8(mins[group]) << 4)
            block[group] = packed
            scales[group], mins[group] = np.float32(packed & 15), np.float32(packed >> 4)
        give(trial, 0, 16, quants)
        requantize(values[i], 3, 16, d, dmin, scales, mins, quants)
        store_crumbs(block[16:], quants)


@encoder
def q3_k(values: Any, counts: Any, out: Any) -> None:
    """As `blocks256.q3_k`. The scales of sixteen blocks are quantised at once."""
    found, few = np.zeros((64, LANES), np.float32), np.empty((4, LANES), np.float32)
    x, weights, scales, sums = found[:16], found[16:32], found[32:48], found[48:]
    quants, total = np.empty((LANES, 256), np.uint8), np.empty(LANES, np.float32)
    for first in range(0, len(values), LANES):
        count = min(LANES, len(values) - first)
        for lane in range(count):
            take(values, first + lane, 16, x)
            take(counts, first + lane, 16, weights)
            _sums(weights, total)
            even_scales(TIER, 16, 4, 9, x.ctypes.data, weights.ctypes.data, few[0].ctypes.data, few[1].ctypes.data)
            _round(values[first + lane], few[1], 4, quants[lane])
            scales[:, lane], sums[:, lane] = few[0], total
        even_scales(TIER, 16, 32, 9, scales.ctypes.data, sums.ctypes.data, few[2].ctypes.data, few[3].ctypes.data)
        for lane in range(count):
            _store_q3(values[first + lane], scales[:, lane], few[2, lane], few[3, lane], quants[lane], out[first + lane])


@inner
def _round(x: Any, inverses: Any, top: int, quants: Any) -> None:
    """Quants of groups of 16; 0 where a group is all zeros."""
    for j in range(256):
        quant = top + clamp(-top, top - 1, nearest(inverses[j // 16] * x[j]))
        quants[j] = quant if inverses[j // 16] != ZERO else 0


@inner
def _store_q3(x: Any, scales: Any, scale: float, inverse: float, quants: Any, block: Any) -> None:
    d = store_half(block, 108, scale)
    for j in range(16):
        scales[j] = np.float32(clamp(-32, 31, nearest(inverse * scales[j]))) if inverse != ZERO else np.float32(-32)
    store_q3_scales(block[96:], scales)
    requantize_signed(x, 4, d, scales, quants)
    store_bits(block, quants, 2)
    store_crumbs(block[32:], quants)
