"""Drivers that few architectures need: rows put together anew, scaled, or kept within bounds."""

from __future__ import annotations

import numpy as np

from runtime.kernels.activations import tanh
from runtime.kernels.desk import claim
from runtime.kernels.driver import row_driver, sigmoid
from runtime.kernels.memory import f32, f64, i64


@row_driver
def scale(args: int, desk: int, thread: int, threads: int) -> None:
    """x[row] = factor * x[row]. Arguments: address of the row count, x f32, width, factor (f64)."""
    a = i64(args, 4)
    count, width, factor = i64(a[0], 1)[0], a[2], np.float32(f64(args, 4)[3])
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        x = f32(a[1] + 4 * row * width, width)
        for i in range(width):
            x[i] *= factor


@row_driver
def gate_rows(args: int, desk: int, thread: int, threads: int) -> None:
    """x[row] = sigmoid(logits[row]) * x[row]. Arguments: address of the row count, x f32, width, logits f32."""
    a = i64(args, 4)
    count, width = i64(a[0], 1)[0], a[2]
    logits = f32(a[3], count)
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        x, factor = f32(a[1] + 4 * row * width, width), sigmoid(logits[row])
        for i in range(width):
            x[i] *= factor


@row_driver
def softcap(args: int, desk: int, thread: int, threads: int) -> None:
    """x[row] = cap * tanh(x[row] / cap). Arguments: address of the row count, x f32, width, cap (f64)."""
    a = i64(args, 4)
    count, width, cap = i64(a[0], 1)[0], a[2], np.float32(f64(args, 4)[3])
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        x = f32(a[1] + 4 * row * width, width)
        for i in range(width):
            x[i] = cap * tanh(x[i] / cap)


PART = 4  # int64 fields of a part: where in the first row, bytes a row, values, bytes from one head to the next


@row_driver
def join(args: int, desk: int, thread: int, threads: int) -> None:
    """out[row][head] = the parts' values for the head, one after the other.

    Arguments: address of the row count, out f32, heads, values of a head in out, parts, then PART fields each.
    """
    a = i64(args, 5)
    count, heads, width, parts = i64(a[0], 1)[0], a[2], a[3], a[4]
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        done = 0
        for p in range(parts):
            part = i64(args + 8 * (5 + PART * p), PART)
            for h in range(heads):
                x = f32(part[0] + row * part[1] + h * part[3], part[2])
                out = f32(a[1] + 4 * ((row * heads + h) * width + done), part[2])
                for i in range(part[2]):
                    out[i] = x[i]
            done += part[2]
