"""From which value on the next one of the uneven levels of IQ4_NL and IQ4_XS is nearer, in single precision (best_index_int8)."""

from __future__ import annotations

import itertools

import numpy as np

from runtime.quants.iq4_nl import VALUES


def _threshold(low: int, high: int) -> float:
    """The smallest x for which x - low < high - x is false."""
    a, b = np.float32(low), np.float32(high)
    x = np.float32((low + high) / 2)
    while True:
        below = np.nextafter(x, a)
        if below - a < b - below:
            return float(x)
        x = below


THRESHOLDS = tuple(_threshold(low, high) for low, high in itertools.pairwise(VALUES))
