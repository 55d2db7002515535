"""TQ1_0 and TQ2_0: -1, 0 or 1 times the largest value of 256 (ggml-quants.c quantize_row_tq*_0_ref)."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.quantize.rounding import away, encoder, extreme, inner, inverse, store_half


@inner
def _trits(x: Any, out: Any, offset: int, trits: Any) -> None:
    """0, 1 or 2 for each value, and f16 d."""
    d = abs(extreme(x))
    store_half(out, offset, d)
    scale = inverse(d)
    for i in range(256):
        trits[i] = away(x[i] * scale) + 1


@inner
def _store_fives(out: Any, offset: int, trits: Any, stride: int, count: int) -> None:
    """`count` trits, `stride` apart, in each of `stride` bytes: base 3, stretched to 256, the first one highest."""
    for m in range(stride):
        number = np.int32(0)
        for n in range(5):
            number = 3 * number + (np.int32(trits[m + n * stride]) if n < count else np.int32(0))
        out[offset + m] = (number * 256 + 242) // 243


@encoder
def tq1_0(values: Any, out: Any) -> None:
    """48 bytes of five trits, 4 bytes of four; f16 d."""
    trits = np.empty(256, np.uint8)
    for i in range(len(values)):
        _trits(values[i], out[i], 52, trits)
        _store_fives(out[i], 0, trits, 32, 5)
        _store_fives(out[i], 32, trits[160:], 16, 5)
        _store_fives(out[i], 48, trits[240:], 4, 4)


@encoder
def tq2_0(values: Any, out: Any) -> None:
    """64 bytes of four values, 32 apart, two bits each; f16 d."""
    trits = np.empty(256, np.uint8)
    for i in range(len(values)):
        _trits(values[i], out[i], 64, trits)
        for j in range(64):
            at = j // 32 * 128 + j % 32
            out[i, j] = trits[at] | trits[at + 32] << 2 | trits[at + 64] << 4 | trits[at + 96] << 6
