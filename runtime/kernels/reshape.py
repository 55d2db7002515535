"""Drivers that few architectures need: rows put together anew, scaled, or kept within bounds."""

from __future__ import annotations

import numpy as np

from runtime.kernels.activations import tanh
from runtime.kernels.driver import claim, driver
from runtime.kernels.memory import f32, f64, i64


@driver
def scale(args: int, counter: int, thread: int, threads: int) -> None:
    """x[row] = factor * x[row]. Arguments: address of the row count, x f32, width, factor (f64)."""
    a = i64(args, 4)
    count, width, factor = i64(a[0], 1)[0], a[2], np.float32(f64(args, 4)[3])
    while True:
        row = claim(counter, 1)
        if row >= count:
            return
        x = f32(a[1] + 4 * row * width, width)
        for i in range(width):
            x[i] *= factor


@driver
def softcap(args: int, counter: int, thread: int, threads: int) -> None:
    """x[row] = cap * tanh(x[row] / cap). Arguments: address of the row count, x f32, width, cap (f64)."""
    a = i64(args, 4)
    count, width, cap = i64(a[0], 1)[0], a[2], np.float32(f64(args, 4)[3])
    while True:
        row = claim(counter, 1)
        if row >= count:
            return
        x = f32(a[1] + 4 * row * width, width)
        for i in range(width):
            x[i] = cap * tanh(x[i] / cap)
