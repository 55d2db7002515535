"""Searches for a scale in which one quant at a time moves while that helps (ggml-quants.c make_q3_quants, make_qp_quants)."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.quantize.rounding import ONE, TINY, ZERO, clamp, extreme, inner, nearest

_ROUNDS = 5
_TRIES = 4  # scales on each side of the plain one


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


@inner
def _weighed_sums(x: Any, weights: Any, top: int, inverse: float, quants: Any) -> Any:
    sum_lx = sum_l2 = ZERO
    for i in range(len(x)):
        quant = min(top, nearest(inverse * x[i]))
        quants[i] = np.uint8(quant)
        sum_lx += weights[i] * x[i] * np.float32(quant)
        sum_l2 += weights[i] * np.float32(quant) * np.float32(quant)
    return sum_lx, sum_l2


@inner
def _error(x: Any, weights: Any, top: int, inverse: float) -> Any:
    scale, error = ONE / inverse, ZERO
    for i in range(len(x)):
        diff = x[i] - scale * np.float32(min(top, nearest(inverse * x[i])))
        error += weights[i] * diff * diff
    return error


@inner
def _plain_error(x: Any, weights: Any, inverse: float) -> Any:
    """As `_error`, of quants in bytes: one below zero becomes a large one."""
    scale, error = ONE / inverse, ZERO
    for i in range(len(x)):
        diff = x[i] - scale * np.float32(np.uint8(nearest(inverse * x[i])))
        error += weights[i] * diff * diff
    return error


@inner
def positive_scale(x: Any, weights: Any, top: int, quants: Any) -> Any:
    """The scale with value = scale * quant for `quants`, 0 to `top` where values are not negative (make_qp_quants)."""
    largest = max(ZERO, x.max())
    if largest < TINY:
        quants[: len(x)] = 0
        return ZERO
    inverse = np.float32(top) / largest
    best = _plain_error(x, weights, inverse)
    for step in range(-_TRIES, _TRIES + 1):
        other = (np.float32(0.1) * np.float32(step) + np.float32(top)) / largest
        error = _error(x, weights, top, other)
        if step and error < best:
            best, inverse = error, other
    sum_lx, sum_l2 = _weighed_sums(x, weights, top, inverse, quants)
    for _ in range(_ROUNDS):
        changed = False
        for i in range(len(x)):
            weight, quant = weights[i], np.float32(quants[i])
            lx, l2 = sum_lx - weight * x[i] * quant, sum_l2 - weight * quant * quant
            if not (lx > ZERO and l2 > ZERO):
                continue
            new = min(top, nearest(x[i] * l2 / lx))
            if new == np.int32(quants[i]):
                continue
            lx += weight * x[i] * np.float32(new)
            l2 += weight * np.float32(new) * np.float32(new)
            if lx * lx * sum_l2 > sum_lx * sum_lx * l2:
                quants[i] = np.uint8(new)
                sum_lx, sum_l2, changed = lx, l2, True
        if not changed:
            break
    return sum_lx / sum_l2 if sum_l2 > ZERO else ZERO
