"""IQ4_NL, IQ4_XS, MXFP4: nibbles that choose from 16 uneven values (ggml-quants.c quantize_row_iq4_nl_impl, _mxfp4_ref)."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.kernels.memory import bits_f32
from runtime.quantize.lanes import LANES, TIER
from runtime.quantize.rounding import ZERO, clamp, encoder, extreme, inner, inverse, nearest, store_half
from runtime.quantize.signed_lanes import uneven_scales
from runtime.quantize.thresholds import THRESHOLDS
from runtime.quantize.weighed32 import take
from runtime.quants.mxfp4 import VALUES as FLOATS

_LOWEST = 127  # below zero
_TRIES = 7  # on each side of the plain scale
_THRESHOLDS = np.array(THRESHOLDS, np.float32)
_FLOATS = np.array(FLOATS, np.float32)


@inner
def _store(x: Any, first: int, scale: float, quants: Any, out: Any, offset: int) -> None:
    """Nibbles of 32 values; nearest of the levels, between two the higher one."""
    quants[:] = 0
    for threshold in _THRESHOLDS:
        for j in range(32):
            quants[j] += not scale * x[first + j] < threshold
    for j in range(16):
        out[offset + j] = quants[j] | quants[16 + j] << 4


@inner
def _scales(values: Any, weights: Any, first: int, lanes: Any, scales: Any) -> None:
    """The d of sixteen groups of 32 = d * VALUES[quant] with the least error, from group `first` of `values` (n, 32) on, into
    scales[0]."""
    x, counts = lanes[:32], lanes[32:]
    take(values, first, x)
    take(weights, first, counts)
    uneven_scales(TIER, 32, _LOWEST, _TRIES, x.ctypes.data, counts.ctypes.data, scales[0].ctypes.data, scales[1].ctypes.data)


@encoder
def iq4_nl(values: Any, weights: Any, out: Any) -> None:
    """f16 d; 16 bytes of nibbles."""
    lanes, both = np.empty((64, LANES), np.float32), np.empty((2, LANES), np.float32)
    flat, quants, scales = values.reshape(-1), np.empty(32, np.uint8), both[0]
    for first in range(0, len(values), LANES):
        _scales(values, weights, first, lanes, both)
        for i in range(first, min(first + LANES, len(values))):
            store_half(out[i], 0, scales[i - first])
            _store(flat, 32 * i, inverse(scales[i - first]), quants, out[i], 2)


@inner
def _store_block(x: Any, scales: Any, quants: Any, block: Any) -> None:
    """IQ4_XS: f16 d, the scales in 6 bits, and the nibbles for them."""
    largest = ZERO
    for group in range(8):
        if abs(scales[group]) > abs(largest):
            largest = scales[group]
    d = -largest / np.float32(32)
    store_half(block, 0, d)
    block[2:8] = 0
    scale = inverse(d)
    for group in range(8):
        factor = clamp(-32, 31, nearest(scale * scales[group]))
        _store(x, 32 * group, inverse(d * np.float32(factor)), quants, block, 8 + 16 * group)
        block[2 + group // 4] |= (factor + 32 >> 4) << 2 * (group % 4)
        block[4 + group // 2] |= (factor + 32 & 15) << 4 * (group % 2)


@encoder
def iq4_xs(values: Any, weights: Any, out: Any) -> None:
    """f16 d; 2 bytes with the upper bits and 4 bytes with the lower ones of 6-bit scales; 8 times 16 bytes of nibbles."""
    lanes, both = np.empty((64, LANES), np.float32), np.empty((2, LANES), np.float32)
    groups, counts, quants, scales = values.reshape(-1, 32), weights.reshape(-1, 32), np.empty(32, np.uint8), both[0]
    for first in range(0, len(values), 2):
        _scales(groups, counts, 8 * first, lanes, both)
        for i in range(first, min(first + 2, len(values))):
            _store_block(values[i], scales[8 * (i - first) : 8 * (i - first) + 8], quants, out[i])


@inner
def _nearest_float(x: float, scale: float) -> int:
    """Of the value nearest to `x`; of several the first. Those from 8 on are the negative ones."""
    best, error = 0, abs(x)
    for i in range(1, 8):
        other = abs(_FLOATS[i] * scale - abs(x))
        if other < error:
            best, error = i, other
    return best + 8 if x < ZERO and best else best


@encoder
def mxfp4(values: Any, out: Any) -> None:
    """A power of two, so that the largest value is at most four times it, and 16 bytes of nibbles."""
    for i in range(len(values)):
        x, exponent = values[i], 0
        largest = abs(extreme(x))
        if largest > ZERO:
            exponent = int(np.floor(np.float32(np.log2(np.float64(largest))))) + 125
        exponent &= 255
        scale = bits_f32(np.int32((exponent - 1) << 23 if exponent > 1 else 0x200000 << exponent))
        out[i, 0] = exponent
        for j in range(16):
            out[i, 1 + j] = _nearest_float(x[j], scale) | _nearest_float(x[16 + j], scale) << 4
