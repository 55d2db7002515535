"""The search for the scale of a group whose magnitudes come from a codebook (ggml-quants.c quantize_row_iq3_s_impl and its
likes). A point that is not in the codebook goes to the entry, of those nearest to it, that leaves the least error.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from runtime.quantize.rounding import HALF, LARGEST, ONE, ZERO, clamp, inlined, inner, nearest

# ---------------------------------------------------------------- a point
# A slice of an array costs more than the arithmetic on it, so `first` says where an entry's values begin.


@inlined
def number_of(levels: Any, first: int, width: int, bits: int) -> Any:
    """The number of the point that an entry's levels are."""
    number = np.int32(0)
    for i in range(width):
        number |= np.int32(levels[first + i]) << (bits * i)
    return number


@inlined
def _place(book: Any, rules: Any, x: Any, roots: Any, first: int, inverse: float, scale: float, levels: Any) -> bool:
    """Rounds the values of one entry, to levels that each stand for 2 level + 1, and moves them to the codebook; whether they
    were there. `roots` of the weights weigh the error of a neighbour."""
    width = rules.width
    for i in range(first, first + width):
        levels[i] = clamp(0, rules.top, nearest(HALF * (inverse * x[i] - ONE)))
    index = book.entry[number_of(levels, first, width, rules.bits)]
    if index >= 0:
        return True
    best, error = np.int16(0), LARGEST
    for at in range(book.starts[-1 - index], book.starts[-index]):
        other, total = book.neighbours[at], ZERO
        for i in range(width):
            diff = scale * np.float32(2 * book.levels[other, i] + 1) - x[first + i]
            total += roots[first + i] * diff * diff
        if total < error:
            best, error = other, total
    for i in range(width):
        levels[first + i] = book.levels[best, i]
    return False


@inlined
def _fit(x: Any, weights: Any, levels: Any) -> Any:
    sum_qx = sum_q2 = ZERO
    for i in range(len(x)):
        value = np.float32(2 * levels[i] + 1)
        product = weights[i] * value
        sum_qx += weights[i] * x[i] * value
        sum_q2 += product * value
    return sum_qx, sum_q2


# ---------------------------------------------------------------- a group


class Rules(NamedTuple):
    """How a type's groups are searched."""

    width: int  # values of an entry
    bits: int  # of a place
    top: int  # the highest level
    tries: int  # scales on each side of the plain one
    step: Any  # between two of them
    again: bool  # points that have an entry are rounded anew at the end too, when another one has none
    always: bool  # and also when all have one


class Scratch(NamedTuple):
    """Memory for one group."""

    x: Any
    weights: Any
    roots: Any
    levels: Any
    trial: Any
    on_grid: Any
    trial_on_grid: Any


@inner
def scratch(count: int) -> Any:
    """Memory for groups of `count` values."""
    floats, levels, flags = np.empty((3, count), np.float32), np.empty((2, count), np.int8), np.empty((2, 8), np.bool_)
    return Scratch(floats[0], floats[1], floats[2], levels[0], levels[1], flags[0], flags[1])


@inlined
def search(book: Any, rules: Any, s: Any, largest: float, scale: float) -> Any:
    """The scale of the group of magnitudes `s.x` with `s.weights`; its levels are left in `s.levels`.

    `largest` is what the highest level stands for at first, `scale` what counts when nothing is found.
    """
    x, weights, roots, trial, on_grid = s.x, s.weights, s.roots, s.trial, s.trial_on_grid
    width, count = rules.width, len(x)
    most, best = np.float32(2 * rules.top + 1), ZERO
    s.levels[:] = 0
    s.on_grid[:] = not rules.again
    for i in range(count):
        roots[i] = np.sqrt(weights[i])
    for step in range(-rules.tries, rules.tries + 1):
        inverse = (most + np.float32(step) * rules.step) / largest
        for k in range(count // width):
            on_grid[k] = _place(book, rules, x, roots, k * width, inverse, ONE / inverse, trial)
        sum_qx, sum_q2 = _fit(x, weights, trial)
        if sum_q2 > ZERO and sum_qx * sum_qx > best * sum_q2:
            scale = sum_qx / sum_q2
            best = scale * sum_qx
            s.levels[:] = trial
            s.on_grid[:] = on_grid
    return _settled(book, rules, s, scale)


@inlined
def _settled(book: Any, rules: Any, s: Any, scale: float) -> Any:
    """The scale, once what lay off the codebook has been moved again with the scale that was found."""
    width = rules.width
    entries = len(s.x) // width
    if not scale > ZERO or (s.on_grid[:entries].all() and not rules.always):
        return scale
    for k in range(entries):
        if rules.again or not s.on_grid[k]:
            _place(book, rules, s.x, s.roots, k * width, ONE / scale, scale, s.levels)
    sum_qx, sum_q2 = _fit(s.x, s.weights, s.levels)
    return sum_qx / sum_q2 if sum_q2 > ZERO else scale
