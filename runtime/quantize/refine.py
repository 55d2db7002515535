"""The search for the scale of a group of Q3_K (ggml-quants.c make_q3_quants)."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.quantize.rounding import TINY, ZERO, clamp, extreme, inner, nearest

_ROUNDS = 5


@inner
def _signed_sums(x: Any, top: int, inverse: float) -> Any:
    sum_lx = sum_l2 = ZERO
    for i in range(len(x)):
        quant = np.float32(clamp(-top, top - 1, nearest(inverse * x[i])))
        weight = x[i] * x[i]
        sum_lx += weight * x[i] * quant
        sum_l2 += weight * quant * quant
    return sum_lx, sum_l2


@inner
def _store_signed(x: Any, top: int, inverse: float, quants: Any) -> None:
    for i in range(len(x)):
        quants[i] = top + clamp(-top, top - 1, nearest(inverse * x[i]))


@inner
def refined_scale(x: Any, top: int, quants: Any) -> Any:
    """The scale with value = scale * (quant - top); its quants, 0 to 2 top - 1, are stored. Errors count by value squared;
    after the plain scale, one quant at a time moves while that helps."""
    value = extreme(x)
    if abs(value) < TINY:
        quants[: len(x)] = 0
        return ZERO
    inverse = np.float32(-top) / value
    sum_lx, sum_l2 = _signed_sums(x, top, inverse)
    _store_signed(x, top, inverse, quants)
    for _ in range(_ROUNDS):
        changed = False
        for i in range(len(x)):
            weight, quant = x[i] * x[i], np.float32(np.int32(quants[i]) - top)
            lx = sum_lx - weight * x[i] * quant
            if not lx > ZERO:
                continue
            l2 = sum_l2 - weight * quant * quant
            new = clamp(-top, top - 1, nearest(x[i] * l2 / lx))
            if new == np.int32(quants[i]) - top:
                continue
            lx += weight * x[i] * np.float32(new)
            l2 += weight * np.float32(new) * np.float32(new)
            if l2 > ZERO and lx * lx * sum_l2 > sum_lx * sum_lx * l2:
                quants[i] = new + top
                sum_lx, sum_l2, changed = lx, l2, True
        if not changed:
            break
    return sum_lx / sum_l2 if sum_l2 > ZERO else ZERO
