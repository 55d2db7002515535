"""Activation memory: a buffer goes back to the stock when the last reference to it is gone.

Rows of a Program run in order, so a buffer that the forward pass no longer holds may serve later rows.
"""

from __future__ import annotations

import weakref

import numpy as np
import numpy.typing as npt

from runtime.weights import aligned_array


class Buffer:
    """Memory at `address`; its owner gets it back when this object dies."""

    __slots__ = ("__weakref__", "address", "nbytes")

    def __init__(self, address: int, nbytes: int) -> None:
        self.address = address
        self.nbytes = nbytes


class Buffers:
    """The stock. Sizes are rounded up to a power of two so that buffers fit again."""

    def __init__(self) -> None:
        self._arrays: list[npt.NDArray[np.generic]] = []
        self._free: dict[int, list[int]] = {}  # addresses by size
        self.nbytes = 0

    def take(self, nbytes: int) -> Buffer:
        """A buffer of at least `nbytes`; what it holds is undefined."""
        size = max(64, 1 << (nbytes - 1).bit_length())
        free = self._free.setdefault(size, [])
        address = free.pop() if free else self._grow(size)
        buffer = Buffer(address, size)
        weakref.finalize(buffer, free.append, address)
        return buffer

    def _grow(self, size: int) -> int:
        array = aligned_array((size,), np.uint8)
        self._arrays.append(array)
        self.nbytes += size
        return array.ctypes.data
