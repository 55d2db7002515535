"""Q4_0, Q4_1, Q5_0 and Q5_1 with an importance matrix (ggml-quants.c quantize_row_*_impl)."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.quantize.blocks32 import store_fifth_bits, store_nibbles
from runtime.quantize.lanes import LANES, TIER, scale_and_min
from runtime.quantize.rounding import ZERO, clamp, encoder, inner, nearest, store_half
from runtime.quantize.signed_lanes import even_scales

_SIZE = 32


@inner
def take(values: Any, first: int, x: Any) -> None:
    """Sixteen blocks of 32, from block `first` on, into the lanes of x (32, 16); after the last block that one again."""
    for lane in range(LANES):
        block = min(len(values) - 1, first + lane)
        for i in range(_SIZE):
            x[i, lane] = values[block, i]


@inner
def _round(x: Any, inverse: float, top: int, quants: Any) -> None:
    """Quants from 0 to 2 top - 1; 0 where all is zero."""
    for i in range(_SIZE):
        quants[i] = top + clamp(-top, top - 1, nearest(inverse * x[i])) if inverse != ZERO else 0


@inner
def _scratch() -> Any:
    """Values, weights, and quants with as much scratch; two rows of what the search finds; the quants of a block."""
    return np.empty((4 * _SIZE, LANES), np.float32), np.empty((2, LANES), np.float32), np.empty(_SIZE, np.uint8)


@encoder
def q4_0(values: Any, counts: Any, out: Any) -> None:
    """As `blocks32.q4_0`."""
    lanes, both, quants = _scratch()
    x, weights = lanes[:32], lanes[32:64]
    for first in range(0, len(values), LANES):
        take(values, first, x)
        take(counts, first, weights)
        even_scales(TIER, 32, 8, 9, x.ctypes.data, weights.ctypes.data, both[0].ctypes.data, both[1].ctypes.data)
        for i in range(first, min(first + LANES, len(values))):
            store_half(out[i], 0, both[0, i - first])
            _round(values[i], both[1, i - first], 8, quants)
            store_nibbles(out[i], 2, quants)


@encoder
def q5_0(values: Any, counts: Any, out: Any) -> None:
    """As `blocks32.q5_0`."""
    lanes, both, quants = _scratch()
    x, weights = lanes[:32], lanes[32:64]
    for first in range(0, len(values), LANES):
        take(values, first, x)
        take(counts, first, weights)
        even_scales(TIER, 32, 16, 9, x.ctypes.data, weights.ctypes.data, both[0].ctypes.data, both[1].ctypes.data)
        for i in range(first, min(first + LANES, len(values))):
            store_half(out[i], 0, both[0, i - first])
            _round(values[i], both[1, i - first], 16, quants)
            store_fifth_bits(out[i], 2, quants)
            store_nibbles(out[i], 6, quants)


@inner
def _give(found: Any, lane: int, quants: Any) -> None:
    for i in range(_SIZE):
        quants[i] = np.uint8(found[i, lane])


@encoder
def q4_1(values: Any, counts: Any, out: Any) -> None:
    """As `blocks32.q4_1`."""
    lanes, both, quants = _scratch()
    x, weights, trial = lanes[:32], lanes[32:64], lanes[64:]
    for first in range(0, len(values), LANES):
        take(values, first, x)
        take(counts, first, weights)
        scale_and_min(TIER, 32, 15, -90, 5, 36, False, x.ctypes.data, weights.ctypes.data, trial.ctypes.data, both.ctypes.data)
        for i in range(first, min(first + LANES, len(values))):
            store_half(out[i], 0, both[0, i - first])
            store_half(out[i], 2, -both[1, i - first])
            _give(trial, i - first, quants)
            store_nibbles(out[i], 4, quants)


@encoder
def q5_1(values: Any, counts: Any, out: Any) -> None:
    """As `blocks32.q5_1`."""
    lanes, both, quants = _scratch()
    x, weights, trial = lanes[:32], lanes[32:64], lanes[64:]
    for first in range(0, len(values), LANES):
        take(values, first, x)
        take(counts, first, weights)
        scale_and_min(TIER, 32, 31, -90, 5, 36, False, x.ctypes.data, weights.ctypes.data, trial.ctypes.data, both.ctypes.data)
        for i in range(first, min(first + LANES, len(values))):
            store_half(out[i], 0, both[0, i - first])
            store_half(out[i], 2, -both[1, i - first])
            _give(trial, i - first, quants)
            store_fifth_bits(out[i], 4, quants)
            store_nibbles(out[i], 8, quants)
