"""Searches for the scale of a group with the least error (ggml-quants.c make_qkx2_quants, make_qx_quants, make_q3_quants)."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.quantize.rounding import ONE, TINY, ZERO, clamp, extreme, inner, nearest

_TENTH = np.float32(0.1)
_STEPS = 9  # scales that `signed_scale` tries on each side of the plain one
_ROUNDS = 5  # of `refined_scale`


# ---------------------------------------------------------------- scale and minimum


@inner
def scale_and_min(x: Any, weights: Any, top: int, quants: Any, trial: Any, first: float, steps: int, absolute: bool) -> Any:
    """(scale, min) with value = scale * quant - min and quants from 0 to top, which are stored too.

    Tries (top + first + 0.1 step) quants over the span, each with the scale and minimum that fit its quants best.
    """
    low, high, sum_w, sum_x = _span(x, weights)
    if high == low:
        quants[: len(x)] = 0
        return ZERO, -low
    inverse = np.float32(top) / (high - low)
    scale = ONE / inverse
    _round(x, low, inverse, top, quants)
    best = _error(x, weights, quants, scale, low, absolute)
    for step in range(steps + 1):
        inverse = (first + _TENTH * np.float32(step) + np.float32(top)) / (high - low)
        _round(x, low, inverse, top, trial)
        sum_l, sum_l2, sum_xl = _sums(x, weights, trial)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        if not determinant > ZERO:
            continue
        fit = (sum_w * sum_xl - sum_x * sum_l) / determinant
        fit_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        if fit_low > ZERO:
            fit, fit_low = sum_xl / sum_l2, ZERO
        error = _error(x, weights, trial, fit, fit_low, absolute)
        if error < best:
            quants[: len(x)] = trial[: len(x)]
            best, scale, low = error, fit, fit_low
    return scale, -low


@inner
def _span(x: Any, weights: Any) -> Any:
    """Lowest value, but at most 0; highest; the sums of the weights and of the weighted values."""
    low = high = x[0]
    sum_w = weights[0]
    sum_x = sum_w * x[0]
    for i in range(1, len(x)):
        low, high = min(low, x[i]), max(high, x[i])
        sum_w += weights[i]
        sum_x += weights[i] * x[i]
    return min(low, ZERO), high, sum_w, sum_x


@inner
def _round(x: Any, low: float, inverse: float, top: int, quants: Any) -> None:
    for i in range(len(x)):
        quants[i] = clamp(0, top, nearest(inverse * (x[i] - low)))


@inner
def _sums(x: Any, weights: Any, quants: Any) -> Any:
    sum_l = sum_l2 = sum_xl = ZERO
    for i in range(len(x)):
        quant = np.float32(quants[i])
        product = weights[i] * quant
        sum_l += product
        sum_l2 += product * quant
        sum_xl += product * x[i]
    return sum_l, sum_l2, sum_xl


@inner
def _error(x: Any, weights: Any, quants: Any, scale: float, low: float, absolute: bool) -> Any:
    total = ZERO
    for i in range(len(x)):
        diff = scale * np.float32(quants[i]) + low - x[i]
        total += weights[i] * (abs(diff) if absolute else diff * diff)
    return total


# ---------------------------------------------------------------- scale alone


@inner
def signed_scale(x: Any, top: int, quants: Any) -> Any:
    """The scale with value = scale * (quant - top); its quants, 0 to 2 top - 1, are stored. Errors count by value squared."""
    value = extreme(x)
    if abs(value) < TINY:
        quants[: len(x)] = 0
        return ZERO
    inverse = np.float32(-top) / value
    sum_lx, sum_l2 = _signed_sums(x, top, inverse)
    _store_signed(x, top, inverse, quants)
    scale = sum_lx / sum_l2 if sum_l2 != ZERO else ZERO
    best = scale * sum_lx
    for step in range(-_STEPS, _STEPS + 1):
        if step == 0:
            continue
        inverse = -(np.float32(top) + _TENTH * np.float32(step)) / value
        sum_lx, sum_l2 = _signed_sums(x, top, inverse)
        if sum_l2 > ZERO and sum_lx * sum_lx > best * sum_l2:
            _store_signed(x, top, inverse, quants)
            scale = sum_lx / sum_l2
            best = scale * sum_lx
    return scale


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
    """As `signed_scale`, but it moves one quant at a time while that helps."""
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
