"""Q8_0, and without an importance matrix Q4_0, Q4_1, Q5_0 and Q5_1: blocks of 32 whose scale spans their largest value
(ggml-quants.c quantize_row_*_ref).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.quantize.rounding import HALF, LARGEST, ZERO, away, encoder, extreme, inner, inverse, store_half

HALVES = 16  # the first 16 values go into low nibbles, the others into high ones


@inner
def store_nibbles(out: Any, offset: int, quants: Any) -> None:
    """Four bits of each of 32 values."""
    for j in range(16):
        out[offset + j] = (quants[j] & 15) | ((quants[HALVES + j] & 15) << 4)


@inner
def store_fifth_bits(out: Any, offset: int, quants: Any) -> None:
    """The fifth bit of each of 32 values."""
    for k in range(4):
        bits = 0
        for j in range(8):
            bits |= (quants[8 * k + j] >> 4) << j
        out[offset + k] = bits


@inner
def _offset_quants(x: Any, top: int, out: Any, quants: Any) -> None:
    """value = d * (quant - top): the value farthest from zero becomes 0."""
    d = extreme(x) / np.float32(-top)
    store_half(out, 0, d)
    scale, middle = inverse(d), np.float32(top) + HALF
    for j in range(32):
        quants[j] = min(2 * top - 1, int(x[j] * scale + middle))


@inner
def _min_quants(x: Any, top: int, out: Any, quants: Any) -> None:
    """value = d * quant + m, with quants from 0 to top."""
    low, high = LARGEST, -LARGEST
    for j in range(32):
        low, high = min(low, x[j]), max(high, x[j])
    d = (high - low) / np.float32(top)
    store_half(out, 0, d)
    store_half(out, 2, low)
    scale = inverse(d)
    for j in range(32):
        quants[j] = min(top, int((x[j] - low) * scale + HALF))


@encoder
def q4_0(values: Any, out: Any) -> None:
    """f16 d; 16 bytes of nibbles."""
    quants = np.empty(32, np.uint8)
    for i in range(len(values)):
        _offset_quants(values[i], 8, out[i], quants)
        store_nibbles(out[i], 2, quants)


@encoder
def q4_1(values: Any, out: Any) -> None:
    """f16 d, m; 16 bytes of nibbles."""
    quants = np.empty(32, np.uint8)
    for i in range(len(values)):
        _min_quants(values[i], 15, out[i], quants)
        store_nibbles(out[i], 4, quants)


@encoder
def q5_0(values: Any, out: Any) -> None:
    """f16 d; 4 bytes of fifth bits; 16 bytes of nibbles."""
    quants = np.empty(32, np.uint8)
    for i in range(len(values)):
        _offset_quants(values[i], 16, out[i], quants)
        store_fifth_bits(out[i], 2, quants)
        store_nibbles(out[i], 6, quants)


@encoder
def q5_1(values: Any, out: Any) -> None:
    """f16 d, m; 4 bytes of fifth bits; 16 bytes of nibbles."""
    quants = np.empty(32, np.uint8)
    for i in range(len(values)):
        _min_quants(values[i], 31, out[i], quants)
        store_fifth_bits(out[i], 4, quants)
        store_nibbles(out[i], 8, quants)


@encoder
def q8_0(values: Any, out: Any) -> None:
    """f16 d; 32 signed bytes."""
    for i in range(len(values)):
        largest = ZERO
        for j in range(32):
            largest = max(largest, abs(values[i, j]))
        d = largest / np.float32(127)
        store_half(out[i], 0, d)
        scale = inverse(d)
        for j in range(32):
            out[i, 2 + j] = away(values[i, j] * scale) & 255
