"""How much the error of each value counts: by the importance of its column and its own size, or by its size alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.quantize.rounding import ZERO, encoder
from runtime.quants.base import Floats

_ROW = 0
_SPANS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("Q4_0", "Q4_1", "Q5_0", "Q5_1"), (_ROW, 1)),
    **dict.fromkeys(("Q2_K", "IQ2_XXS", "IQ2_XS"), (256, 1)),
    **dict.fromkeys(("Q3_K", "Q4_K", "Q5_K", "IQ1_S", "IQ1_M", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), (256, 2)),
    "IQ4_NL": (32, 2),
}
"""Over how many values the mean of the squares is taken that is added to a value's square, and how often."""

NEEDY = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS"})
"""The types that need an importance matrix."""

WEIGHED = frozenset(_SPANS) | {"Q6_K"}
"""The types for which an importance matrix makes a difference."""


def by_importance(name: str, values: Floats, importance: Floats) -> Floats:
    """(rows, row) of a type and the importance of each value -> how much its error counts (ggml-quants.c, quant_weights)."""
    if name == "Q6_K":
        return importance
    span, factor = _SPANS[name]
    shape = (-1, span) if span else values.shape
    weights = np.empty_like(values)
    _weigh(values.reshape(shape), importance.reshape(shape), np.float32(factor), weights.reshape(shape))
    return weights


def by_size(name: str, values: Floats) -> Floats:
    """As `by_importance`, of types that search alike with and without a matrix; values of other types count otherwise."""
    squares = values * values
    if name == "IQ2_S":
        _add_mean(squares.reshape(-1, 256))
    return squares


@encoder
def _weigh(values: Any, importance: Any, factor: float, out: Any) -> None:
    for i in range(len(values)):
        total = ZERO
        for j in range(values.shape[1]):
            total += values[i, j] * values[i, j]
        mean = factor * total / np.float32(values.shape[1])
        for j in range(values.shape[1]):
            out[i, j] = importance[i, j] * np.sqrt(mean + values[i, j] * values[i, j])


@encoder
def _add_mean(squares: Any) -> None:
    """Half of the mean of 256 squares on top of each."""
    for i in range(len(squares)):
        total = ZERO
        for j in range(256):
            total += squares[i, j]
        total = np.float32(0.25) * (np.float32(2) * total / np.float32(256))
        for j in range(256):
            squares[i, j] += total
