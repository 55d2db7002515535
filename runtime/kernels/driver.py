"""Drivers: kernels written as plain numba code that divide a row of a Program into pieces and call leaves.

A driver knows shapes and pointers, never a quant type or an ISA: those live in the leaves whose addresses it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.kernels.cache import KernelCache
from runtime.kernels.jit import njit
from runtime.kernels.memory import bits_f32

SIGNATURE = "void(int64,int64,int64,int64)"  # arguments, desk, thread, threads
# Sums may be reassociated so that LLVM vectorises them: the order is then fixed by the compiled code, the same for every row.
FAST = {"nnan", "nsz", "reassoc", "contract", "arcp"}

inline = njit(inline="always", error_model="numpy", fastmath=FAST)


class Driver:
    """A numba function (arguments, desk, thread, threads), compiled when its address is first asked for. It takes its pieces of
    work from the desk (see `desk`).

    `by_row`: its pieces are rows of activations, so that a single row is one piece.
    """

    def __init__(self, function: Callable[[int, int, int, int], None], *, by_row: bool = False) -> None:
        self.function, self.by_row = function, by_row
        self.name = f"{function.__module__.rsplit('.', 1)[-1]}.{function.__name__}"
        self._compiled: Any = None

    def address(self, cache: KernelCache) -> int:
        """Address of the compiled kernel, `void(int64 arguments, int64 desk, int64 thread, int64 threads)`."""
        if self._compiled is None:
            self._compiled = cache.cfunc(SIGNATURE, self.function, error_model="numpy", fastmath=FAST)
        return int(self._compiled.address)


def driver(function: Callable[[int, int, int, int], None]) -> Driver:
    """Decorator: the function becomes a Driver."""
    return Driver(function)


def row_driver(function: Callable[[int, int, int, int], None]) -> Driver:
    """Decorator: the function becomes a Driver whose pieces are rows of activations."""
    return Driver(function, by_row=True)


@inline
def exp(x: Any) -> Any:
    """e**x for float32 x in [-87, 88] (smaller x count as -87), relative error below 3e-7; loops over it vectorise."""
    x = max(np.float32(x), np.float32(-87.0))
    # round(x / ln 2), by truncation; without the cast it would be an int64, which AVX2 makes floats of one by one
    n = np.int32(np.int32(x * np.float32(1.44269504) + np.float32(1024.5)) - 1024)
    r = x - np.float32(n) * np.float32(0.693359375) + np.float32(n) * np.float32(2.12194440e-4)  # ln 2 in two parts
    # Taylor series of e**r, |r| <= ln 2 / 2
    p = np.float32(1 / 5040) * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    return p * bits_f32((n + np.int32(127)) << np.int32(23))


@inline
def rms_scale(x: Any, size: int, eps: float) -> Any:
    """1 / sqrt(mean(x**2) + eps) of a vector."""
    total = np.float32(0)
    for i in range(size):
        total += x[i] * x[i]
    return np.float32(1.0 / np.sqrt(total / size + eps))


@inline
def sigmoid(x: Any) -> Any:
    """1 / (1 + e**-x) of a float32."""
    return np.float32(1) / (np.float32(1) + exp(min(-x, np.float32(80))))


@inline
def silu(x: Any) -> Any:
    """x * sigmoid(x) of a float32."""
    return x / (np.float32(1) + exp(min(-x, np.float32(80))))
