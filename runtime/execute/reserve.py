"""Arrays of which only the addresses are taken: memory comes with the first write to a page."""

from __future__ import annotations

import mmap
import platform
import sys
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from runtime.weights import aligned_array

Scalar = TypeVar("Scalar", bound=np.generic)

# Python 3.11 does not name it; the number is the same on the machines named here
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


def reserved_array(lengths: tuple[int, int], shape: tuple[int, ...], dtype: type[Scalar]) -> npt.NDArray[Scalar]:
    """A zeroed array (length, *shape). `lengths`: the one wanted, and the least where the system grants no more addresses.

    Raises MemoryError where it does not grant even those.
    """
    wanted, least = lengths
    if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64"):
        nbytes = wanted * int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            pages = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
            pages.madvise(mmap.MADV_HUGEPAGE)  # as NumPy does with large arrays
            return np.frombuffer(pages, dtype).reshape(wanted, *shape)
        except OSError:  # a limit on addresses, a system that keeps memory for every one, or one without huge pages
            pass
    return aligned_array((least, *shape), dtype)
