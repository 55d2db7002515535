"""IQ4_NL, IQ4_XS, MXFP4: nibbles that choose from 16 uneven values (ggml-quants.c quantize_row_iq4_nl_impl, _mxfp4_ref)."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.kernels.memory import bits_f32
from runtime.quantize.rounding import TINY, ZERO, clamp, encoder, extreme, inner, inverse, nearest, store_half
from runtime.quants.iq4_nl import VALUES
from runtime.quants.mxfp4 import VALUES as FLOATS

_TRIES = 7  # on each side of the plain scale
_VALUES = np.array(VALUES, np.float32)
_LOWEST = VALUES[0]
_FLOATS = np.array(FLOATS, np.float32)


@inner
def _index(x: float) -> int:
    """Of the value nearest to `x`; between two it is the higher one."""
    if x <= _VALUES[0]:
        return 0
    if x >= _VALUES[15]:
        return 15
    low, high = 0, 15
    while high - low > 1:
        middle = (low + high) // 2
        if x < _VALUES[middle]:
            high = middle
        else:
            low = middle
    return high - 1 if x - _VALUES[high - 1] < _VALUES[high] - x else high


@inner
def _sums(x: Any, scale: float) -> Any:
    sum_qx = sum_q2 = ZERO
    for i in range(32):
        value = _VALUES[_index(scale * x[i])]
        product = x[i] * x[i] * value
        sum_qx += product * x[i]
        sum_q2 += product * value
    return sum_qx, sum_q2


@inner
def _best_scale(x: Any) -> Any:
    """The d of 32 values = d * VALUES[quant] with the least error; errors count by value squared."""
    value = extreme(x)
    if abs(value) < TINY:
        return ZERO
    sum_qx, sum_q2 = _sums(x, np.float32(1) / (-value / _VALUES[0]))
    d = sum_qx / sum_q2 if sum_q2 > ZERO else ZERO
    best = d * sum_qx
    for step in range(-_TRIES, _TRIES + 1):
        sum_qx, sum_q2 = _sums(x, np.float32(step + _LOWEST) / value)
        if sum_q2 > ZERO and sum_qx * sum_qx > best * sum_q2:
            d = sum_qx / sum_q2
            best = d * sum_qx
    return d


@inner
def _store(x: Any, scale: float, out: Any, offset: int) -> None:
    for j in range(16):
        out[offset + j] = _index(scale * x[j]) | _index(scale * x[16 + j]) << 4


@encoder
def iq4_nl(values: Any, out: Any) -> None:
    """f16 d; 16 bytes of nibbles."""
    for i in range(len(values)):
        d = _best_scale(values[i])
        store_half(out[i], 0, d)
        _store(values[i], inverse(d), out[i], 2)


@encoder
def iq4_xs(values: Any, out: Any) -> None:
    """f16 d; 2 bytes with the upper bits and 4 bytes with the lower ones of 6-bit scales; 8 times 16 bytes of nibbles."""
    scales = np.empty(8, np.float32)
    for i in range(len(values)):
        block, largest = out[i], ZERO
        for group in range(8):
            scales[group] = _best_scale(values[i, 32 * group : 32 * group + 32])
            if abs(scales[group]) > abs(largest):
                largest = scales[group]
        d = -largest / np.float32(32)
        store_half(block, 0, d)
        block[2:8] = 0
        scale = inverse(d)
        for group in range(8):
            factor = clamp(-32, 31, nearest(scale * scales[group]))
            x = values[i, 32 * group : 32 * group + 32]
            _store(x, inverse(d * np.float32(factor)), block, 8 + 16 * group)
            block[2 + group // 4] |= (factor + 32 >> 4) << 2 * (group % 4)
            block[4 + group // 2] |= (factor + 32 & 15) << 4 * (group % 2)


@inner
def _nearest_float(x: float, scale: float) -> int:
    """Of the value nearest to `x`; of several the first."""
    best, error = 0, abs(_FLOATS[0] * scale - x)
    for i in range(1, 16):
        other = abs(_FLOATS[i] * scale - x)
        if other < error:
            best, error = i, other
    return best


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
