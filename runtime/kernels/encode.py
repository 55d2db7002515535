"""Drivers for whole texts at once, without a cache: LayerNorm, GELU, attention within each text, pooling.

Rows of one text stand together. Keys are read where they were computed; values are transposed first, so that scores and
weighted sums alike are rows of a matrix times a few columns: the leaves of F32 weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.kernels import activations
from runtime.kernels.attention import turn_heads
from runtime.kernels.desk import claim
from runtime.kernels.driver import driver, exp, inline
from runtime.kernels.matmul import WIDEST
from runtime.kernels.memory import f32, f64, i32, i64
from runtime.kernels.segments import products

TILE = WIDEST  # rows of one text that attend together
TILE_FIELDS = 4  # first row, rows, first row of the text, row after the text
MEAN, CLS, LAST = 1, 2, 3  # pooling, as GGUF numbers it
STRIP = 16  # rows that are transposed together


def scratch_bytes(longest: int) -> int:
    """Bytes of scratch that `attend` needs a thread: pointers, and the scores of a tile."""
    return (16 * WIDEST + 4 * TILE * longest + 63) // 64 * 64


@driver
def layer_norm(args: int, desk: int, thread: int, threads: int) -> None:
    """out[row] = (x[row] - mean) / sqrt(variance + eps) * weight + bias.

    Arguments: address of the row count, x f32, weight, bias f32, out f32, width, eps (f64).
    """
    a = i64(args, 7)
    count, width, eps = i64(a[0], 1)[0], a[5], f64(args, 7)[6]
    weight, bias = f32(a[2], width), f32(a[3], width)
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        x, out = f32(a[1] + 4 * row * width, width), f32(a[4] + 4 * row * width, width)
        total = np.float32(0)
        for i in range(width):
            total += x[i]
        mean = np.float32(total / width)
        squares = np.float32(0)
        for i in range(width):
            squares += (x[i] - mean) * (x[i] - mean)
        scale = np.float32(1.0 / np.sqrt(squares / width + eps))
        for i in range(width):
            out[i] = (x[i] - mean) * scale * weight[i] + bias[i]


@driver
def gelu(args: int, desk: int, thread: int, threads: int) -> None:
    """x[row] = gelu(x[row]) by its usual approximation with tanh. Arguments: address of the row count, x f32, width."""
    a = i64(args, 3)
    count, width = i64(a[0], 1)[0], a[2]
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        x = f32(a[1] + 4 * row * width, width)
        for i in range(width):
            x[i] = activations.gelu(x[i])


@driver
def turn(args: int, desk: int, thread: int, threads: int) -> None:
    """Norm (where there is one) and turn q and k in place.

    Arguments: address of the row count, q, k f32, q norm, k norm (f32 or 0), rotary table, half, style, heads, kv heads,
    key size, eps (f64).
    """
    a = i64(args, 12)
    count, half, style, heads, kv_heads, size, eps = i64(a[0], 1)[0], a[6], a[7], a[8], a[9], a[10], f64(args, 12)[11]
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        turn_heads(a[1] + 4 * row * heads * size, a[2] + 4 * row * kv_heads * size, a[3], a[4],
                   f32(a[5] + 8 * row * half, 2 * half), half, style, heads, kv_heads, size, eps)  # fmt: skip


@driver
def transpose(args: int, desk: int, thread: int, threads: int) -> None:
    """out[i][row] = x[row][i]. Arguments: address of the row count, x f32, width, out f32, values an out row."""
    a = i64(args, 5)
    count, width, stride = i64(a[0], 1)[0], a[2], a[4]
    while True:
        first = STRIP * claim(desk, 1)
        if first >= count:
            return
        rows = min(STRIP, count - first)
        x = f32(a[1] + 4 * first * width, rows * width)
        for i in range(width):
            out = f32(a[3] + 4 * (i * stride + first), rows)
            for r in range(rows):
                out[r] = x[r * width + i]


@inline
def _weigh(scores: Any, count: int, padded: int, scale: Any) -> Any:
    """The first `count` scores become e**(score * scale - maximum), the rest up to `padded` become 0. Returns their sum."""
    top, total = np.float32(-1e30), np.float32(0)
    for t in range(count):
        scores[t] *= scale
        top = max(top, scores[t])
    for t in range(count):
        scores[t] = exp(scores[t] - top)
        total += scores[t]
    for t in range(count, padded):
        scores[t] = np.float32(0)
    return total


@driver
def attend(args: int, desk: int, thread: int, threads: int) -> None:
    """out[row] = softmax(q k * scale) v over the row's text, or over what of it is not behind the row.

    Arguments: address of the tile count, tiles (TILE_FIELDS i32 each), q, k f32, transposed v f32, values a row of that,
    out f32, heads, kv heads, key size, value size, causal, F32 leaves, scratch, scratch bytes, longest, scale (f64).
    """
    a = i64(args, 17)
    tiles, heads, kv_heads, size, value_size, longest = i64(a[0], 1)[0], a[7], a[8], a[9], a[10], a[15]
    leaves, scale = i64(a[12], WIDEST + 1), np.float32(f64(args, 17)[16])
    pointers = a[13] + thread * a[14]
    scores_at = pointers + 16 * WIDEST
    while True:
        item = claim(desk, 1)
        if item >= tiles * heads:
            return
        tile, h = i32(a[1] + 4 * TILE_FIELDS * (item // heads), TILE_FIELDS), item % heads
        first, rows, begin, kv = tile[0], tile[1], tile[2], h // (heads // kv_heads)
        length = tile[3] - begin if a[11] == 0 else first + rows - begin
        products(leaves, a[3] + 4 * (begin * kv_heads + kv) * size, 4 * kv_heads * size, length, size,
                 a[2] + 4 * (first * heads + h) * size, 0, 4 * heads * size, rows, scores_at, 4 * longest, rows,
                 pointers)  # fmt: skip
        for r in range(rows):
            scores = f32(scores_at + 4 * r * longest, length)
            seen = length if a[11] == 0 else first + r + 1 - begin
            total = _weigh(scores, seen, length, scale)
            share = np.float32(1) / total
            for t in range(seen):
                scores[t] *= share
        products(leaves, a[4] + 4 * (kv * value_size * a[5] + begin), 4 * a[5], value_size, length,
                 scores_at, 0, 4 * longest, rows, a[6] + 4 * (first * heads + h) * value_size, 4 * heads * value_size, rows,
                 pointers)  # fmt: skip


@driver
def pool(args: int, desk: int, thread: int, threads: int) -> None:
    """out[text] = the mean of its rows, or its first, or its last one.

    Arguments: address of the text count, first row of each text i32 (and the row after the last text), x f32, out f32,
    width, kind.
    """
    a = i64(args, 6)
    count, width, kind = i64(a[0], 1)[0], a[4], a[5]
    starts = i32(a[1], count + 1)
    while True:
        text = claim(desk, 1)
        if text >= count:
            return
        begin, end = starts[text], starts[text + 1]
        if kind == CLS:
            end = begin + 1
        elif kind == LAST:
            begin = end - 1
        out = f32(a[3] + 4 * text * width, width)
        share = np.float32(1.0 / (end - begin))
        for i in range(width):
            out[i] = np.float32(0)
        for row in range(begin, end):
            x = f32(a[2] + 4 * row * width, width)
            for i in range(width):
                out[i] += x[i] * share
