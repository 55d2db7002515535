"""Drivers of attention over the paged cache: rotary tables, rotate and store, attend.

One layer's cache: keys and values, (blocks, kv heads) of what `kept` describes. Keys are transposed: so scores and weighted sums
are both sums of rows, each times a factor, and the leaves need no sum across lanes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from runtime.core import BLOCK_TOKENS
from runtime.kernels.activations import tanh
from runtime.kernels.driver import FAST, claim, driver, exp, inline, rms_scale, row_driver
from runtime.kernels.jit import njit
from runtime.kernels.kept import GROUP
from runtime.kernels.matmul import WIDEST, leaf_width
from runtime.kernels.memory import bits_f32, call6, f32, f32_bits, f64, i32, i64, u8, u16

SEGMENT = 512  # keys whose scores a thread holds at a time
NEOX, INTERLEAVED = 0, 1  # which two values of a head turn together: (i, i + half) or (2 i, 2 i + 1)


def scratch_bytes(group: int, value_size: int) -> int:
    """Bytes of scratch that `attend` needs a thread: pointers, scores, sums and the state of a softmax for each column."""
    floats = max(group, WIDEST) * (SEGMENT + 2 * value_size + 2)
    return (16 * WIDEST + 4 * floats + 63) // 64 * 64


@inline
def tile_rows(group: int) -> int:
    """Rows whose heads fill the widest leaf."""
    return max(WIDEST // group, 1)


@inline
def _f16_bits(x: Any) -> Any:
    """The bits of float32 x as f16, rounded to even; beyond f16's range infinite. NaN stays NaN."""
    u = np.uint32(f32_bits(np.float32(x)))
    sign, a = (u >> np.uint32(16)) & np.uint32(0x8000), u & np.uint32(0x7FFFFFFF)
    if a > np.uint32(0x7F800000):
        return np.uint16(sign | np.uint32(0x7E00))
    if a >= np.uint32(0x477FF000):
        return np.uint16(sign | np.uint32(0x7C00))
    if a < np.uint32(0x38800000):  # subnormal: the sum with 0.5 rounds at f16's last place
        tiny = bits_f32(np.int32(a)) + np.float32(0.5)
        return np.uint16(sign | (np.uint32(f32_bits(tiny)) - np.uint32(0x3F000000)))
    odd = (a >> np.uint32(13)) & np.uint32(1)
    return np.uint16(sign | ((a - np.uint32(0x38000000) + np.uint32(0xFFF) + odd) >> np.uint32(13)))


@row_driver
def rotary_table(args: int, counter: int, thread: int, threads: int) -> None:
    """cos and sin of each row's position times each frequency, times `magnitude`.

    Arguments: address of the row count, positions i32, frequencies f64, table (rows, 2, half) f32, half, magnitude (f64).
    """
    a = i64(args, 6)
    count, half, magnitude = i64(a[0], 1)[0], a[4], f64(args, 6)[5]
    positions, frequencies = i32(a[1], count), f64(a[2], half)
    while True:
        row = claim(counter, 1)
        if row >= count:
            return
        table = f32(a[3] + 8 * row * half, 2 * half)
        for i in range(half):
            angle = positions[row] * frequencies[i]
            table[i] = math.cos(angle) * magnitude
            table[half + i] = math.sin(angle) * magnitude


@inline
def _norm_head(x: Any, weight: Any, size: int, eps: float) -> None:
    """RMS norm of one head, in place."""
    scale = rms_scale(x, size, eps)
    for i in range(size):
        x[i] = x[i] * scale * weight[i]


@inline
def _rotate(x: Any, table: Any, half: int, style: int) -> None:
    """Turn one head in place by the row's cos and sin."""
    for i in range(half):
        first, second = (i, i + half) if style == NEOX else (2 * i, 2 * i + 1)
        a, b = x[first], x[second]
        x[first] = a * table[i] - b * table[half + i]
        x[second] = a * table[half + i] + b * table[i]


@inline
def turn_heads(q: int, k: int, q_norm: int, k_norm: int, table: Any, half: int, style: int, heads: int, kv_heads: int,
               size: int, eps: float) -> None:
    """Norm (where there is one) and turn the heads of one row, q and k, in place."""
    for h in range(heads + kv_heads):
        if h < heads:
            x, norm = f32(q + 4 * h * size, size), q_norm
        else:
            x, norm = f32(k + 4 * (h - heads) * size, size), k_norm
        if norm != 0:
            _norm_head(x, f32(norm, size), size, eps)
        _rotate(x, table, half, style)


@inline
def spread(x: Any, size: int) -> None:
    """Hadamard's transform of each 2**n values of a head, the largest that divide its size, in place: orthonormal, and its own
    inverse."""
    span = size & -size
    half = 1
    while half < span:
        for first in range(0, size, 2 * half):
            for i in range(first, first + half):
                a, b = x[i], x[i + half]
                x[i], x[i + half] = a + b, a - b
        half *= 2
    share = np.float32(1.0 / np.sqrt(span))
    for i in range(size):
        x[i] *= share


@inline
def _head_bytes(bits: int, size: int) -> int:
    """Kept.head_bytes."""
    return BLOCK_TOKENS * (2 * size if bits == 16 else size // GROUP * (4 * bits + 2))


@inline
def _pack_group(x: Any, bits: int, out: int, step: int, scale_at: int) -> None:
    """32 values to quants, a byte every `step`, and their scale; as GGUF's Q8_0 and Q4_0 have them."""
    low, high = np.float32(0), np.float32(0)
    for i in range(GROUP):
        low, high = min(low, x[i]), max(high, x[i])
    peak = high if bits == 8 and high > -low else low if bits == 8 or -low > high else high
    scale = abs(peak) / np.float32(127) if bits == 8 else peak / np.float32(-8)
    inverse = np.float32(1) / scale if abs(scale) > np.float32(1e-30) else np.float32(0)
    quants = u8(out, GROUP * step)
    u16(scale_at, 1)[0] = _f16_bits(scale)
    if bits == 8:
        for i in range(GROUP):
            quants[i * step] = np.uint8(np.int32(x[i] * inverse + np.float32(128.5)) - np.int32(128))
    else:
        for i in range(GROUP // 2):
            first = min(np.int32(x[i] * inverse + np.float32(8.5)), np.int32(15))
            second = min(np.int32(x[i + GROUP // 2] * inverse + np.float32(8.5)), np.int32(15))
            quants[i * step] = np.uint8(first | second << np.int32(4))


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def _store_key(x: int, size: int, bits: int, keys: int, slot: int) -> None:
    """A key to its place among the 64 of its head's block at `keys`."""
    if bits == 16:
        row, kept = f32(x, size), u16(keys, size * BLOCK_TOKENS)
        for i in range(size):
            kept[i * BLOCK_TOKENS + slot] = _f16_bits(row[i])
        return
    spread(f32(x, size), size)
    for g in range(size // GROUP):
        quants = keys + g * BLOCK_TOKENS * (4 * bits + 2)
        scale_at = quants + BLOCK_TOKENS * 4 * bits + 2 * slot
        _pack_group(f32(x + 4 * GROUP * g, GROUP), bits, quants + slot, BLOCK_TOKENS, scale_at)


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def _store_value(x: int, size: int, bits: int, values: int, slot: int) -> None:
    """A value to its place among the 64 of its head's block at `values`."""
    if bits == 16:
        row, kept = f32(x, size), u16(values + 2 * slot * size, size)
        for i in range(size):
            kept[i] = _f16_bits(row[i])
        return
    spread(f32(x, size), size)
    row_bytes, scales = size * bits // 8, values + BLOCK_TOKENS * size * bits // 8
    for g in range(size // GROUP):
        scale_at = scales + 2 * (slot * (size // GROUP) + g)
        _pack_group(f32(x + 4 * GROUP * g, GROUP), bits, values + slot * row_bytes + g * 4 * bits, 1, scale_at)


@driver
def rotate_store(args: int, counter: int, thread: int, threads: int) -> None:
    """Norm (where there is one) and turn q and k in place, and write k and v into the cache.

    Arguments: address of the row count, q, k, v f32, q norm, k norm (f32 or 0), rotary table, half, style, heads, kv heads,
    key size, value size, positions, sequences, block tables i32, blocks a table, key cache, value cache, bits of a value
    there, eps (f64).
    """
    a = i64(args, 21)
    count, half, style = i64(a[0], 1)[0], a[7], a[8]
    heads, kv_heads, size, value_size, bits, eps = a[9], a[10], a[11], a[12], a[19], f64(args, 21)[20]
    positions, sequences = i32(a[13], count), i32(a[14], count)
    while True:
        row = claim(counter, 1)
        if row >= count:
            return
        turn_heads(a[1] + 4 * row * heads * size, a[2] + 4 * row * kv_heads * size, a[4], a[5],
                   f32(a[6] + 8 * row * half, 2 * half), half, style, heads, kv_heads, size, eps)  # fmt: skip
        block = i32(a[15] + 4 * sequences[row] * a[16], a[16])[positions[row] // BLOCK_TOKENS]
        slot = positions[row] % BLOCK_TOKENS
        for h in range(kv_heads):
            head = block * kv_heads + h
            keys, values = a[17] + head * _head_bytes(bits, size), a[18] + head * _head_bytes(bits, value_size)
            _store_key(a[2] + 4 * (row * kv_heads + h) * size, size, bits, keys, slot)
            _store_value(a[3] + 4 * (row * kv_heads + h) * value_size, value_size, bits, values, slot)


@inline
def products(leaves: Any, weights: int, stride: int, rows: int, length: int, x: int, x_row: int, x_head: int, group: int,
             out: int, out_step: int, columns: int, pointers: int) -> None:
    """out[c][r] = weights row r . x[c]; column c is head c % group of row c // group."""
    inputs, outputs = i64(pointers, WIDEST), i64(pointers + 8 * WIDEST, WIDEST)
    done = 0
    while done < columns:
        width = leaf_width(leaves, columns - done)
        for c in range(width):
            inputs[c] = x + (done + c) // group * x_row + (done + c) % group * x_head
            outputs[c] = out + (done + c) * out_step
        call6(leaves[width], (weights, stride, rows, pointers, pointers + 8 * WIDEST, length))
        done += width


@inline
def weigh(scores: Any, first: int, end: int, padded: int, scale: Any, softcap: Any, top: Any) -> Any:
    """Scores in [first, end) become e**(score * scale - maximum), the others up to `padded` become 0. Returns the maximum,
    which is at least `top`, and the sum. `softcap`: see `Heads`."""
    if softcap != np.float32(0):
        for t in range(first, end):
            scores[t] = softcap / scale * tanh(scores[t] * scale / softcap)
    for t in range(first, end):
        scores[t] *= scale
        top = max(top, scores[t])
    total = np.float32(0)
    for t in range(first, end):
        scores[t] = exp(scores[t] - top)
        total += scores[t]
    for t in range(first):
        scores[t] = np.float32(0)
    for t in range(end, padded):
        scores[t] = np.float32(0)
    return top, total


@inline
def _run_length(sequences: Any, row: int, end: int) -> int:
    """Rows from `row`, before `end`, that belong to the same text."""
    n = 1
    while row + n < end and sequences[row + n] == sequences[row]:
        n += 1
    return n


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def _spread_heads(x: int, rows: int, heads: int, group: int, size: int) -> None:
    """`spread` of `group` of the `heads` of each row, from the first one at `x`."""
    for r in range(rows):
        for h in range(group):
            spread(f32(x + 4 * (r * heads + h) * size, size), size)


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def _attend_rows(args: int, row: int, rows: int, kv: int, pointers: int) -> None:
    """Attention of `rows` rows of one text in the heads that share key head `kv`. Arguments: those of `attend`."""
    a = i64(args, 22)
    heads, kv_heads, size, value_size, bits, window = a[3], a[4], a[5], a[6], a[15], a[18]
    group, key_leaves, value_leaves = heads // kv_heads, i64(a[13], WIDEST + 1), i64(a[14], WIDEST + 1)
    scale, softcap = np.float32(f64(args, 22)[20]), np.float32(f64(args, 22)[21])
    key_bytes, value_bytes = _head_bytes(bits, size), _head_bytes(bits, value_size)
    columns = rows * group
    scores_at = pointers + 16 * WIDEST
    sums_at = scores_at + 4 * columns * SEGMENT
    part_at = sums_at + 4 * columns * value_size
    state = f32(part_at + 4 * columns * value_size, 2 * columns)  # the maximum and the sum of each column
    sums, part = f32(sums_at, columns * value_size), f32(part_at, columns * value_size)
    for i in range(columns * value_size):
        sums[i] = np.float32(0)
    for c in range(columns):
        state[2 * c], state[2 * c + 1] = np.float32(-1e30), np.float32(0)
        if a[19] != 0:  # a sink is a score without a value
            state[2 * c], state[2 * c + 1] = f32(a[19], heads)[kv * group + c % group], np.float32(1)
    positions = i32(a[7] + 4 * row, rows)
    blocks = i32(a[9] + 4 * i32(a[8], row + 1)[row] * a[10], a[10])
    queries = a[1] + 4 * (row * heads + kv * group) * size
    if bits != 16:
        _spread_heads(queries, rows, heads, group, size)
    length = positions[rows - 1] + 1
    seen = max(positions[0] + 1 - window, 0) if window != 0 else 0  # the first token that any row sees
    for start in range(seen // SEGMENT * SEGMENT, length, SEGMENT):
        end = min(start + SEGMENT, length)
        first = max(start, seen // BLOCK_TOKENS * BLOCK_TOKENS)
        padded = (end - start + BLOCK_TOKENS - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        for t in range(first, end, BLOCK_TOKENS):
            keys = a[11] + (blocks[t // BLOCK_TOKENS] * kv_heads + kv) * key_bytes
            products(key_leaves, keys, 2 * BLOCK_TOKENS, size, BLOCK_TOKENS, queries, 4 * heads * size, 4 * size, group,
                     scores_at + 4 * (t - start), 4 * SEGMENT, columns, pointers)
        for c in range(columns):
            known = min(max(positions[c // group] + 1 - start, 0), SEGMENT)
            low = max(positions[c // group] + 1 - window - start, 0) if window != 0 else 0
            scores = f32(scores_at + 4 * c * SEGMENT, SEGMENT)
            top, total = weigh(scores, min(low, known), known, padded, scale, softcap, state[2 * c])
            shrink = exp(state[2 * c] - top)  # what the weights of earlier segments are to be multiplied with
            state[2 * c], state[2 * c + 1] = top, state[2 * c + 1] * shrink + total
            for i in range(c * value_size, (c + 1) * value_size):
                sums[i] *= shrink
        for t in range(first, end, BLOCK_TOKENS):
            values = a[12] + (blocks[t // BLOCK_TOKENS] * kv_heads + kv) * value_bytes
            known = min(BLOCK_TOKENS, end - t)
            products(value_leaves, values, value_size * bits // 8, known, value_size, scores_at + 4 * (t - start), 0,
                     4 * SEGMENT, columns, part_at, 4 * value_size, columns, pointers)
            for i in range(columns * value_size):
                sums[i] += part[i]
    for c in range(columns):
        out = f32(a[2] + 4 * ((row + c // group) * heads + kv * group + c % group) * value_size, value_size)
        for i in range(value_size):
            out[i] = sums[c * value_size + i] / state[2 * c + 1]
    if bits != 16:
        _spread_heads(a[2] + 4 * (row * heads + kv * group) * value_size, rows, heads, group, value_size)


@driver
def attend(args: int, counter: int, thread: int, threads: int) -> None:
    """out[row] = softmax(q k / scale) v over the row's sequence up to its position.

    Rows of one text are taken several at a time, as columns of the same products. Segments of 512 keys follow one another with
    a running maximum, and weights beyond a row's position are zeros, so the order of every sum depends on the position alone.
    Arguments: address of the row count, q, out f32, heads, kv heads, key size, value size, positions, sequences, block
    tables i32, blocks a table, key cache, value cache, leaves for keys, leaves for values, bits of a value in the cache,
    scratch, scratch bytes, window (0: none), sinks (heads,) f32 or 0, scale, softcap (f64). Where the cache is quantised,
    q is spread in place.
    """
    a = i64(args, 22)
    count, kv_heads = i64(a[0], 1)[0], a[4]
    group = a[3] // kv_heads
    tile = tile_rows(group)
    sequences = i32(a[8], count)
    tiles = (count + tile - 1) // tile
    while True:
        item = claim(counter, 1)
        if item >= tiles * kv_heads:
            return
        first = (tiles - 1 - item // kv_heads) * tile  # the longest first
        end = min(first + tile, count)
        while first < end:
            rows = _run_length(sequences, first, end)
            _attend_rows(args, first, rows, item % kv_heads, a[16] + thread * a[17])
            first += rows
