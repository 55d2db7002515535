"""Drivers of layers that keep a state of the text so far: a causal convolution, and the gated delta rule (arXiv 2412.06464).

States lie by line of the batch's tables, one of each kind a layer. A text whose first token is at hand finds its own as zeros.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from runtime.kernels.driver import claim, driver, inline, rms_scale, silu
from runtime.kernels.memory import f32, f64, i32, i64

UNROLL = 4  # rows of a state that are read together; its size is a multiple


def scratch_bytes(size: int) -> int:
    """Bytes of scratch that `delta_rule` needs a thread: query, key, and what a state makes of each."""
    return (4 * 4 * size + 63) // 64 * 64


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
def convolve(args: int, counter: int, thread: int, threads: int) -> None:
    """out[row] = silu(the sum of the last `kernel` inputs, each times its weights), by channel; the state keeps the last inputs.

    Arguments: address of the row count, x, out f32, channels, kernel, weights f32 (kernel, channels), positions, sequences i32,
    states f32 (lines, kernel - 1, channels), channels of a piece.
    """
    a = i64(args, 10)
    count, channels, kernel, step = i64(a[0], 1)[0], a[3], a[4], a[9]
    positions, sequences = i32(a[6], count), i32(a[7], count)
    kept, stride = kernel - 1, 4 * channels
    while True:
        begin = claim(counter, step)
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
def _unit(x: int, out: Any, size: int, eps: float, factor: float) -> None:
    """out = factor * x / sqrt(sum(x**2) + eps)."""
    values = f32(x, size)
    total = np.float32(0)
    for i in range(size):
        total += values[i] * values[i]
    scale = np.float32(factor / math.sqrt(total + eps))
    for i in range(size):
        out[i] = values[i] * scale


@inline
def _recall(state: int, key: Any, out: Any, size: int) -> None:
    """out = S^T key."""
    out[:] = np.float32(0)
    for i in range(0, size, UNROLL):
        s0, s1 = f32(state + 4 * i * size, size), f32(state + 4 * (i + 1) * size, size)
        s2, s3 = f32(state + 4 * (i + 2) * size, size), f32(state + 4 * (i + 3) * size, size)
        for j in range(size):
            out[j] += (key[i] * s0[j] + key[i + 1] * s1[j]) + (key[i + 2] * s2[j] + key[i + 3] * s3[j])


@inline
def _learn(state: int, keep: Any, key: Any, change: Any, query: Any, out: Any, size: int) -> None:
    """S = keep * S + outer(key, change), then out = S^T query."""
    out[:] = np.float32(0)
    for i in range(0, size, UNROLL):
        s0, s1 = f32(state + 4 * i * size, size), f32(state + 4 * (i + 1) * size, size)
        s2, s3 = f32(state + 4 * (i + 2) * size, size), f32(state + 4 * (i + 3) * size, size)
        for j in range(size):
            s0[j] = keep * s0[j] + key[i] * change[j]
            s1[j] = keep * s1[j] + key[i + 1] * change[j]
            s2[j] = keep * s2[j] + key[i + 2] * change[j]
            s3[j] = keep * s3[j] + key[i + 3] * change[j]
            out[j] += (query[i] * s0[j] + query[i + 1] * s1[j]) + (query[i + 2] * s2[j] + query[i + 3] * s3[j])


@inline
def softplus(x: float) -> float:
    """log(1 + e**x)."""
    return x if x > 20 else math.log1p(math.exp(x))


@driver
def delta_rule(args: int, counter: int, thread: int, threads: int) -> None:
    """The gated delta rule of `Ops.delta`; a piece is a value head.

    Arguments: address of the row count, qkv f32, z f32, alpha, beta f32 (rows, value heads), out f32, key heads, value heads,
    size, whether value heads of one key head stand together, decay, bias, norm f32, positions, sequences i32, states f32
    (lines, value heads, size, size), scratch, bytes of scratch a thread, eps (f64).
    """
    a = i64(args, 19)
    count, key_heads, heads, size, eps = i64(a[0], 1)[0], a[6], a[7], a[8], f64(args, 19)[18]
    positions, sequences = i32(a[13], count), i32(a[14], count)
    own = a[16] + thread * a[17]
    query, key, change, out = f32(own, size), f32(own + 4 * size, size), f32(own + 8 * size, size), f32(own + 12 * size, size)
    norm, channels = f32(a[12], size), (2 * key_heads + heads) * size
    while True:
        head = claim(counter, 1)
        if head >= heads:
            return
        key_head = head // (heads // key_heads) if a[9] else head % key_heads
        decay, bias = f32(a[10], heads)[head], f32(a[11], heads)[head]
        for row in range(count):
            state = a[15] + 4 * (sequences[row] * heads + head) * size * size
            if positions[row] == 0:
                f32(state, size * size)[:] = np.float32(0)
            qkv = a[1] + 4 * row * channels
            _unit(qkv + 4 * key_head * size, query, size, eps, 1 / math.sqrt(size))
            _unit(qkv + 4 * (key_heads + key_head) * size, key, size, eps, 1.0)
            value = f32(qkv + 4 * (2 * key_heads + head) * size, size)
            keep = np.float32(math.exp(decay * softplus(f32(a[3] + 4 * (row * heads + head), 1)[0] + bias)))
            share = np.float32(1 / (1 + math.exp(-f32(a[4] + 4 * (row * heads + head), 1)[0])))
            _recall(state, key, change, size)
            for j in range(size):
                change[j] = share * (value[j] - keep * change[j])
            _learn(state, keep, key, change, query, out, size)
            place = 4 * (row * heads + head) * size
            z, result, scale = f32(a[2] + place, size), f32(a[5] + place, size), rms_scale(out, size, eps)
            for j in range(size):
                result[j] = np.float32(out[j] * scale * norm[j] * silu(z[j]))
