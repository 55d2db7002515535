"""Candidates: the tokens that may come next, and finding the likeliest of many."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.core import FloatArray

IdArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_LARGEST_GROUP = 64  # logits whose maximum is taken together
_LEAST = -3.4028234663852886e38  # instead of minus infinity, which JSON does not have


class Candidates(NamedTuple):
    """Tokens and their logits, two arrays of the same length."""

    ids: IdArray
    logits: FloatArray
    falling: bool = False  # the likeliest comes first

    def at(self, chosen: IdArray | BoolArray | slice) -> Candidates:
        """Those at some places, in their order."""
        return Candidates(self.ids[chosen], self.logits[chosen], self.falling)

    def sorted(self) -> Candidates:
        """The likeliest first."""
        if self.falling:
            return self
        order, logits = highest(self.logits, len(self.logits))
        return Candidates(self.ids[order], logits, True)

    def probabilities(self) -> FloatArray:
        """The softmax of the logits."""
        weights = np.exp(self.logits - (self.logits[0] if self.falling else self.logits.max()))
        share: FloatArray = weights / weights.sum()
        return share


def highest(logits: FloatArray, k: int) -> tuple[IdArray, FloatArray]:
    """The `k` highest logits, falling, with their places: (places, logits)."""
    if k <= 0:
        return np.empty(0, np.int64), logits[:0]
    ids = (logits >= _bound(logits, k)).nonzero()[0] if k < len(logits) else np.arange(len(logits))
    chosen = logits[ids]
    order = (-chosen).argsort(kind="stable")[:k]
    return ids[order], chosen[order]


def _bound(logits: FloatArray, k: int) -> np.float32:
    """A value that at least `k` logits reach, and few more; k < the number of logits.

    Of disjoint groups, k have a maximum that is at least the k-th highest maximum, so at least k logits are.
    """
    group = 1
    while group < _LARGEST_GROUP and len(logits) >= 16 * k * group:
        group *= 2
    length = len(logits) // group
    maxima = logits[: length * group].reshape(group, length).max(axis=0) if group > 1 else logits.copy()
    maxima.partition(length - k)
    bound: np.float32 = maxima[length - k]
    return bound


def log_probabilities(logits: FloatArray, token: int, k: int) -> tuple[float, list[tuple[int, float]]]:
    """Of `token`, and the `k` likeliest tokens with theirs, by the model alone: before penalties and all else."""
    top = logits.max()
    total = float(top) + math.log(float(np.exp(logits - top).sum(dtype=np.float64)))
    ids, best = highest(logits, k)
    alternatives = [(int(i), max(float(x) - total, _LEAST)) for i, x in zip(ids, best, strict=True)]
    return max(float(logits[token]) - total, _LEAST), alternatives
