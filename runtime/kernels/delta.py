"""Drivers of layers that keep a state of the text so far: a causal convolution, and the gated delta rule (arXiv 2412.06464).

States lie by line of the batch's tables, one of each kind a layer. A text whose first token is at hand finds its own as zeros.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from runtime.kernels.delta_leaves import COLUMNS
from runtime.kernels.desk import claim
from runtime.kernels.driver import driver, inline, rms_scale, row_driver, silu
from runtime.kernels.memory import call7, f32, f64, i32, i64

NUMBERS = 3  # of a value head and a row: what is kept of the state, the share of what is new, and query . key


@inline
def _key_head(head: int, key_heads: int, heads: int, grouped: int) -> int:
    """The key head of a value head: see `Recurrence`."""
    return head // (heads // key_heads) if grouped else head % key_heads


@inline
def _run_end(sequences: Any, row: int, count: int) -> int:
    """The row after those of the same text."""
    end = row + 1
    while end < count and sequences[end] == sequences[row]:
        end += 1
    return end


@inline
def _tap(x: int, state: int, first: int, row: int, back: int, kept: int, stride: int) -> int:
    """Address of the input `back` tokens before that of `row`, in a text whose rows begin with `first`."""
    if row - back >= first:
        return x + (row - back) * stride
    return state + (kept + row - first - back) * stride


@driver
def convolve(args: int, desk: int, thread: int, threads: int) -> None:
    """out[row] = silu(the sum of the last `kernel` inputs, each times its weights), by channel; the state keeps the last inputs.

    Arguments: address of the row count, x, out f32, channels, kernel, weights f32 (kernel, channels), positions, sequences i32,
    states f32 (lines, kernel - 1, channels), channels of a piece.
    """
    a = i64(args, 10)
    count, channels, kernel, step = i64(a[0], 1)[0], a[3], a[4], a[9]
    positions, sequences = i32(a[6], count), i32(a[7], count)
    kept, stride = kernel - 1, 4 * channels
    while True:
        begin = claim(desk, step)
        if begin >= channels:
            return
        size = min(step, channels - begin)
        x = a[1] + 4 * begin
        row = 0
        while row < count:
            first, end = row, _run_end(sequences, row, count)
            state = a[8] + sequences[first] * kept * stride + 4 * begin
            if positions[first] == 0:
                for i in range(kept):
                    f32(state + i * stride, size)[:] = np.float32(0)
            while row < end:
                out = f32(a[2] + row * stride + 4 * begin, size)
                out[:] = np.float32(0)
                for tap in range(kernel):
                    source = f32(_tap(x, state, first, row, kept - tap, kept, stride), size)
                    weights = f32(a[5] + tap * stride + 4 * begin, size)
                    for i in range(size):
                        out[i] += source[i] * weights[i]
                for i in range(size):
                    out[i] = np.float32(silu(out[i]))
                row += 1
            for i in range(kept):  # the oldest first: what is read lies behind what is written
                source = f32(_tap(x, state, first, end, kept - i, kept, stride), size)
                target = f32(state + i * stride, size)
                for j in range(size):
                    target[j] = source[j]


@inline
def _to_length(x: int, size: int, eps: float, length: float) -> None:
    """x *= length / sqrt(sum(x**2) + eps)."""
    values = f32(x, size)
    total = np.float32(0)
    for i in range(size):
        total += values[i] * values[i]
    scale = np.float32(length / math.sqrt(total + eps))
    for i in range(size):
        values[i] *= scale


@inline
def softplus(x: float) -> float:
    """log(1 + e**x)."""
    return x if x > 20 else math.log1p(math.exp(x))


@row_driver
def prepare(args: int, desk: int, thread: int, threads: int) -> None:
    """Bring queries to the length 1 / sqrt(size) and keys to 1, in place, and say what the heads do with them.

    Arguments: address of the row count, qkv f32, alpha, beta f32 (rows, value heads), numbers f32 (rows, value heads, NUMBERS),
    key heads, value heads, size, whether value heads of one key head stand together, decay, bias f32, eps (f64).
    """
    a = i64(args, 12)
    count, key_heads, heads, size, eps = i64(a[0], 1)[0], a[5], a[6], a[7], f64(args, 12)[11]
    decay, bias = f32(a[9], heads), f32(a[10], heads)
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        qkv = a[1] + 4 * row * (2 * key_heads + heads) * size
        for h in range(key_heads):
            _to_length(qkv + 4 * h * size, size, eps, 1 / math.sqrt(size))
            _to_length(qkv + 4 * (key_heads + h) * size, size, eps, 1.0)
        alpha, beta = f32(a[2] + 4 * row * heads, heads), f32(a[3] + 4 * row * heads, heads)
        for h in range(heads):
            numbers = f32(a[4] + 4 * NUMBERS * (row * heads + h), NUMBERS)
            numbers[0] = np.float32(math.exp(decay[h] * softplus(alpha[h] + bias[h])))
            numbers[1] = np.float32(1 / (1 + math.exp(-beta[h])))
            key_head = _key_head(h, key_heads, heads, a[8])
            query, key = f32(qkv + 4 * key_head * size, size), f32(qkv + 4 * (key_heads + key_head) * size, size)
            both = np.float32(0)
            for i in range(size):
                both += query[i] * key[i]
            numbers[2] = both


@driver
def learn(args: int, desk: int, thread: int, threads: int) -> None:
    """Take each text's state through its rows; a piece is COLUMNS columns of a value head, which stay in the core's cache.

    Arguments: address of the row count, qkv f32 and numbers as `prepare` leaves them, out f32, key heads, value heads, size,
    whether value heads of one key head stand together, positions, sequences i32, states f32 (lines, value heads, parts, size,
    COLUMNS), leaf.
    """
    a = i64(args, 12)
    count, key_heads, heads, size = i64(a[0], 1)[0], a[4], a[5], a[6]
    positions, sequences = i32(a[8], count), i32(a[9], count)
    parts, stride = size // COLUMNS, 4 * (2 * key_heads + heads) * size
    while True:
        piece = claim(desk, 1)
        if piece >= heads * parts:
            return
        head, column = piece // parts, piece % parts * COLUMNS
        key_head = _key_head(head, key_heads, heads, a[7])
        for row in range(count):
            state = a[10] + 4 * size * COLUMNS * (sequences[row] * heads * parts + piece)
            if positions[row] == 0:
                f32(state, size * COLUMNS)[:] = np.float32(0)
            qkv = a[1] + row * stride
            query, key = qkv + 4 * key_head * size, qkv + 4 * (key_heads + key_head) * size
            value = qkv + 4 * ((2 * key_heads + head) * size + column)
            numbers, out = a[2] + 4 * NUMBERS * (row * heads + head), a[3] + 4 * ((row * heads + head) * size + column)
            call7(a[11], (state, size, query, key, numbers, value, out))


@row_driver
def finish(args: int, desk: int, thread: int, threads: int) -> None:
    """out = norm(out) * silu(z) by head. Arguments: address of the row count, out, z f32, heads, size, norm f32, eps (f64)."""
    a = i64(args, 7)
    count, heads, size, eps = i64(a[0], 1)[0], a[3], a[4], f64(args, 7)[6]
    norm = f32(a[5], size)
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        for h in range(heads):
            place = 4 * (row * heads + h) * size
            out, z = f32(a[1] + place, size), f32(a[2] + place, size)
            scale = rms_scale(out, size, eps)
            for i in range(size):
                out[i] = np.float32(out[i] * scale * norm[i] * silu(z[i]))
