"""Choosing by a mask (runtime.sampling.masks): loops over its bits.

NumPy reads bits only after it has made bytes of them, which takes longer than all else that a mask is for.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from runtime.core import FloatArray
from runtime.kernels.jit import njit

Mask = npt.NDArray[np.uint8]
Loop = TypeVar("Loop")

_BITS = np.array([number.bit_count() for number in range(256)])  # in a byte
_BYTES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").view(np.uint64)[:, 0].copy()
_FEW = 8  # of so many tokens one
MANY = -2  # instead of a token


def part(function: Loop) -> Loop:
    """Of a compiled loop: nothing by which Python could call it, which would take a quarter of the time to compile."""
    compiled: Loop = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    return compiled


@part
def spread(mask: Mask, size: int) -> Mask:
    """A byte for each bit; what the mask does not reach is refused. Eight at once: bit by bit takes ten times as long."""
    eights = np.empty(size // 8 + 1, np.uint64)
    for place in range(len(eights)):
        eights[place] = _BYTES[mask[place]] if place < len(mask) else np.uint64(0)
    return eights.view(np.uint8)


@part
def _permits_few(logits: FloatArray, mask: Mask) -> bool:
    count = 0
    for at in range(min(len(mask), len(logits) // 8)):
        count += _BITS[mask[at]]
    return _FEW * count <= len(logits)


@njit(nogil=True, cache=True, error_model="numpy")
def best(logits: FloatArray, mask: Mask) -> int:
    """The permitted token with the highest logit, of equal ones the lowest; -1 if none has one above minus infinity; MANY if so
    many are permitted that NumPy finds it sooner `without_refused`."""
    if not _permits_few(logits, mask):
        return MANY
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
    if _permits_few(logits, mask):
        return logits[:0], 0
    permits, values, count = spread(mask, len(logits)), np.empty(len(logits), np.float32), 0
    for token in range(len(logits)):
        count += permits[token]
        values[token] = logits[token] if permits[token] != 0 else np.float32(-np.inf)
    return values, count


def compile_all() -> None:
    """Compile the loops, or load them from the cache."""
    logits, mask = np.zeros(8, np.float32), np.full(4, 255, np.uint8)
    best(logits, mask)
    permitted(logits, mask)
    without_refused(logits, mask)
