"""Where super-blocks of the K types hold their quants and scales, and the quants that belong to scales as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.quantize.lanes import LANES
from runtime.quantize.rounding import ZERO, clamp, inner, nearest

# ---------------------------------------------------------------- lanes


@inner
def take(values: Any, first: int, size: int, x: Any) -> None:
    """Groups of `size` values, from block `first` on, into the lanes of x (size, 16); after the last block that one again."""
    groups = 256 // size
    for lane in range(LANES):
        block = min(len(values) - 1, first + lane // groups)
        start = lane % groups * size
        for i in range(size):
            x[i, lane] = values[block, start + i]


@inner
def give(found: Any, first: int, size: int, quants: Any) -> None:
    """The quants of one block (256,) from lanes `first` and following of (size, 16)."""
    for group in range(256 // size):
        for i in range(size):
            quants[group * size + i] = np.uint8(found[i, first + group])


@inner
def scratch() -> Any:
    """Quants of a block; values, weights and quants of sixteen groups; their scales and minimums; a row of lanes."""
    return (
        np.empty(256, np.uint8),
        np.empty((128, LANES), np.float32),
        np.empty((2, LANES), np.float32),
        np.empty(LANES, np.float32),
    )


# ---------------------------------------------------------------- quants for stored scales


@inner
def requantize(x: Any, top: int, size: int, d: float, dmin: float, scales: Any, mins: Any, quants: Any) -> None:
    """Quants of groups of `size` for the scales as they are stored. A group whose scale is 0 keeps those of the search."""
    for group in range(len(scales)):
        scale, low = d * scales[group], dmin * mins[group]
        if scale == ZERO:
            continue
        for i in range(size * group, size * group + size):
            quants[i] = clamp(0, top, nearest((x[i] + low) / scale))


@inner
def requantize_signed(x: Any, top: int, d: float, scales: Any, quants: Any) -> None:
    """As `requantize`, of groups of 16 without a minimum."""
    for group in range(16):
        scale = d * scales[group]
        if scale == ZERO:
            continue
        for i in range(16 * group, 16 * group + 16):
            quants[i] = top + clamp(-top, top - 1, nearest(x[i] / scale))


# ---------------------------------------------------------------- places


@inner
def store_six_bits(out: Any, scales: Any, mins: Any) -> None:
    """Eight 6-bit scales and minimums in 12 bytes."""
    for j in range(4):
        scale, low = int(scales[j]), int(mins[j])
        scale4, low4 = int(scales[j + 4]), int(mins[j + 4])
        out[j] = scale | (scale4 >> 4) << 6
        out[4 + j] = low | (low4 >> 4) << 6
        out[8 + j] = (scale4 & 15) | (low4 & 15) << 4


@inner
def store_q3_scales(out: Any, scales: Any) -> None:
    """Sixteen 6-bit scales, -32 to 31, in 12 bytes."""
    out[:12] = 0
    for j in range(16):
        scale = int(scales[j]) + 32
        out[j % 8] |= (scale & 15) << 4 * (j // 8)
        out[8 + j % 4] |= (scale >> 4) << 2 * (j // 4)


@inner
def store_crumbs(out: Any, quants: Any) -> None:
    """Two bits of each value: those of four values 32 apart in a byte."""
    for j in range(64):
        at = j // 32 * 128 + j % 32
        out[j] = (quants[at] & 3) | (quants[at + 32] & 3) << 2 | (quants[at + 64] & 3) << 4 | (quants[at + 96] & 3) << 6


@inner
def store_nibbles(out: Any, quants: Any) -> None:
    """Four bits of each value: those of two groups of 32 side by side."""
    for j in range(128):
        low = j // 32 * 64 + j % 32
        out[j] = (quants[low] & 15) | (quants[low + 32] & 15) << 4


@inner
def store_bits(out: Any, quants: Any, shift: int) -> None:
    """One bit of each value, the same place of eight groups in a byte."""
    for j in range(32):
        bits = 0
        for group in range(8):
            bits |= (quants[32 * group + j] >> shift) << group
        out[j] = bits
