"""Choosing by a mask (runtime.sampling.masks): loops over its bits.

NumPy reads bits only after it has made bytes of them, which takes longer than all else that a mask is for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtime.core import FloatArray
from runtime.kernels.jit import njit

Mask = npt.NDArray[np.uint8]

_BITS = np.array([number.bit_count() for number in range(256)])  # in a byte
_FEW = 8  # of so many tokens one

@njit(nogil=True, cache=True, error_model="numpy")
def best(logits: FloatArray, mask: Mask) -> int:
    """The permitted token with the highest logit, of equal ones the lowest; -1 if none has one above minus infinity."""
    chosen, highest = -1, -np.inf
    for at in range(min(len(mask), (len(logits) + 7) // 8)):
        bits = mask[at]
        if bits != 0:
            for token in range(8 * at, min(8 * at + 8, len(logits))):
                if (bits >> (token & 7)) & 1 != 0 and logits[token] > highest:
                    chosen, highest = token, logits[token]
    return chosen


@njit(nogil=True, cache=True, error_model="numpy")
def permitted(logits: FloatArray, mask: Mask) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """The permitted tokens, rising, and their logits."""
    ids, values, count = np.empty(len(logits), np.int64), np.empty(len(logits), np.float32), 0
    for at in range(min(len(mask), (len(logits) + 7) // 8)):
        bits = mask[at]
        if bits != 0:
            for token in range(8 * at, min(8 * at + 8, len(logits))):
                if (bits >> (token & 7)) & 1 != 0:
                    ids[count], values[count] = token, logits[token]
                    count += 1
    return ids[:count], values[:count]


@njit(nogil=True, cache=True, error_model="numpy")
def without_refused(logits: FloatArray, mask: Mask) -> tuple[FloatArray, int]:
    """The logits with those of refused tokens at minus infinity, and how many are permitted. Not for masks that permit few, of
    which nothing is told: `permitted` is faster there."""
    count = 0
    for at in range(min(len(mask), len(logits) // 8)):
        count += _BITS[mask[at]]
    if _FEW * count < len(logits):
        return logits[:0], 0
    values, count = logits.copy(), 0
    for at in range((len(logits) + 7) // 8):
        bits, first, last = mask[at] if at < len(mask) else np.uint8(0), 8 * at, min(8 * at + 8, len(logits))
        count += last - first
        if bits != 255:
            for token in range(first, last):
                if (bits >> (token & 7)) & 1 == 0:
                    values[token] = -np.inf
                    count -= 1
    return values, count


def compile_all() -> None:
    """Compile the loops, or load them from the cache."""
    logits, mask = np.zeros(8, np.float32), np.full(4, 255, np.uint8)
    best(logits, mask)
    permitted(logits, mask)
    without_refused(logits, mask)
