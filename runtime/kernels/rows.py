"""Drivers that work on each activation row by itself: embedding, norm, packing, sums, gather."""

from __future__ import annotations

from typing import Any

from runtime.kernels.activations import activate
from runtime.kernels.desk import claim
from runtime.kernels.driver import inline, rms_scale, row_driver
from runtime.kernels.memory import call3, f32, f64, i32, i64


@row_driver
def embed(args: int, desk: int, thread: int, threads: int) -> None:
    """out[row] = dequantised row tokens[row] of the table.

    Arguments: address of the row count, tokens i32, table, bytes a table row, blocks a table row, leaf, out f32, width.
    """
    a = i64(args, 8)
    count, width = i64(a[0], 1)[0], a[7]
    tokens = i32(a[1], count)
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        call3(a[5], (a[2] + tokens[row] * a[3], a[6] + 4 * row * width, a[4]))


@inline
def _pack_too(packing: Any, x: int, row: int, width: int) -> None:
    """Quantise the row at x that was just made, and is in the core's cache. `packing`: the leaf that does it, or 0, where to, and
    bytes a row there."""
    if packing[0] != 0:
        call3(packing[0], (x, packing[1] + row * packing[2], width))


@row_driver
def rms_norm(args: int, desk: int, thread: int, threads: int) -> None:
    """out[row] = x[row] / sqrt(mean(x[row]**2) + eps) * weight.

    Arguments: address of the row count, x f32, weight f32, out f32, width, eps (f64), and three of `_pack_too`.
    """
    a = i64(args, 9)
    count, width, eps = i64(a[0], 1)[0], a[4], f64(args, 6)[5]
    weight = f32(a[2], width)
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        x, out = f32(a[1] + 4 * row * width, width), f32(a[3] + 4 * row * width, width)
        scale = rms_scale(x, width, eps)
        for i in range(width):
            out[i] = x[i] * scale * weight[i]
        _pack_too(a[6:], a[3] + 4 * row * width, row, width)


@row_driver
def pack(args: int, desk: int, thread: int, threads: int) -> None:
    """Quantise each row of x to the activations that a weight type multiplies.

    Arguments: address of the row count, rows per count, x f32, width, out, bytes an out row, leaf.
    """
    a = i64(args, 7)
    count = i64(a[0], 1)[0] * a[1]
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        call3(a[6], (a[2] + 4 * row * a[3], a[4] + row * a[5], a[3]))


@row_driver
def add(args: int, desk: int, thread: int, threads: int) -> None:
    """out[row] = x[row] + y[row]. Arguments: address of the row count, x, y, out f32, width."""
    a = i64(args, 5)
    count, width = i64(a[0], 1)[0], a[4]
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        x, y = f32(a[1] + 4 * row * width, width), f32(a[2] + 4 * row * width, width)
        out = f32(a[3] + 4 * row * width, width)
        for i in range(width):
            out[i] = x[i] + y[i]


@row_driver
def gated(args: int, desk: int, thread: int, threads: int) -> None:
    """gate[row] = activation(gate[row]) * up[row].

    Arguments: address of the row count, gate, up f32, width, activation, and three of `_pack_too`.
    """
    a = i64(args, 8)
    count, width = i64(a[0], 1)[0], a[3]
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        activate(a[4], a[1] + 4 * row * width, a[2] + 4 * row * width, width)
        _pack_too(a[5:], a[1] + 4 * row * width, row, width)


@row_driver
def gather(args: int, desk: int, thread: int, threads: int) -> None:
    """out[j] = x[rows[j]]. Arguments: address of the output count, rows i32, x f32, out f32, width."""
    a = i64(args, 5)
    count, width = i64(a[0], 1)[0], a[4]
    rows = i32(a[1], count)
    while True:
        j = claim(desk, 1)
        if j >= count:
            return
        x, out = f32(a[2] + 4 * rows[j] * width, width), f32(a[3] + 4 * j * width, width)
        for i in range(width):
            out[i] = x[i]
