"""A Program: the table of kernels and their arguments that the thread pool runs, row after row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.kernels.cache import KernelCache
from runtime.kernels.driver import Driver
from runtime.kernels.team import COLUMNS
from runtime.weights import aligned_array

Table = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A kernel with its arguments. `alone`: its pieces are rows of activations, so where a step has a single one, one thread does
    all of it."""

    kernel: Driver
    arguments: npt.NDArray[np.int64]
    alone: bool = False


def table_of(rows: Sequence[Row], cache: KernelCache) -> Table:
    """The rows as the pool runs them, (rows, COLUMNS): see runtime.kernels.team. They have to live as long."""
    addresses = [(row.kernel.address(cache), row.arguments.ctypes.data, row.alone) for row in rows]
    return np.array(addresses, np.int64).reshape(len(rows), COLUMNS)


def packed(*arguments: int | float) -> npt.NDArray[np.int64]:
    """A kernel's arguments as it reads them: eight bytes each."""
    fields: npt.NDArray[np.int64] = aligned_array((len(arguments),), np.int64)
    for i, argument in enumerate(arguments):
        if isinstance(argument, float):
            fields.view(np.float64)[i] = argument
        else:
            fields[i] = argument
    return fields
