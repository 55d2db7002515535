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
from runtime.kernels.matmul import WIDEST, leaf_width
from runtime.kernels.memory import call6, call7, f32, f64, i32, i64
from runtime.kernels.store import head_bytes, spread_heads, store_key, store_value

SEGMENT = 512  # keys whose scores a thread holds at a time
COLUMNS = 128  # at the most (heads of rows) that share what is read of a segment, while it is in the core's cache
ITEMS = 4  # pieces of work for each thread, where there are rows enough
NEOX, INTERLEAVED = 0, 1  # which two values of a head turn together: (i, i + half) or (2 i, 2 i + 1)


def scratch_bytes(group: int, value_size: int) -> int:
    """Bytes of scratch that `attend` needs a thread: pointers, scores, sums and the state of a softmax for each column."""
    most = max(group, WIDEST)
    floats = most * (SEGMENT + value_size) + max(most, COLUMNS) * (value_size + 2)
    return (16 * WIDEST + 4 * floats + 63) // 64 * 64


@inline
def _leaf_rows(group: Any) -> Any:
    """Rows whose heads fill the widest leaf."""
    return max(WIDEST // group, 1)


@inline
def _tile_rows(group: Any, count: Any, kv_heads: Any, threads: int) -> Any:
    """Rows that are one piece of work: whole leaves of them, and so many pieces that no thread has to wait long."""
    few = _leaf_rows(group)
    wanted = min(count * kv_heads // (ITEMS * threads), COLUMNS // group)
    return max(wanted // few * few, few)


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
def _norm_value(x: Any, size: int, eps: float) -> None:
    """RMS norm of one head without weights, in place."""
    scale = rms_scale(x, size, eps)
    for i in range(size):
        x[i] *= scale


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


@driver
def rotate_store(args: int, counter: int, thread: int, threads: int) -> None:
    """Norm (where there is one) and turn q and k in place, and write k and v into the cache.

    Arguments: address of the row count, q, k, v f32, q norm, k norm (f32 or 0), rotary table, half, style, heads, kv heads,
    key size, value size, positions, sequences, block tables i32, blocks a table, key cache, value cache, bits of a value
    there, eps, eps of a norm of the values (f64; 0: there is none).
    """
    a = i64(args, 22)
    value_eps = f64(args, 22)[21]
    count, half, style = i64(a[0], 1)[0], a[7], a[8]
    heads, kv_heads, size, value_size, bits, eps = a[9], a[10], a[11], a[12], a[19], f64(args, 22)[20]
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
            keys, values = a[17] + head * head_bytes(bits, size), a[18] + head * head_bytes(bits, value_size)
            store_key(a[2] + 4 * (row * kv_heads + h) * size, size, bits, keys, slot)
            value = a[3] + 4 * (row * kv_heads + h) * value_size
            if value_eps != 0:
                _norm_value(f32(value, value_size), value_size, value_eps)
            store_value(value, value_size, bits, values, slot)


@inline
def _point(pointers: int, first: int, width: int, x: int, x_row: int, x_head: int, group: int, out: int, out_step: int) -> None:
    """The addresses of `width` columns for a leaf; column c is head c % group of row c // group."""
    inputs, outputs = i64(pointers, WIDEST), i64(pointers + 8 * WIDEST, WIDEST)
    for c in range(width):
        inputs[c] = x + (first + c) // group * x_row + (first + c) % group * x_head
        outputs[c] = out + (first + c) * out_step


@inline
def products(leaves: Any, weights: int, stride: int, rows: int, length: int, x: int, x_row: int, x_head: int, group: int,
             out: int, out_step: int, columns: int, pointers: int) -> None:
    """out[c][r] = weights row r . x[c], by leaves `dot`; columns: see `_point`."""
    done = 0
    while done < columns:
        width = leaf_width(leaves, columns - done)
        _point(pointers, done, width, x, x_row, x_head, group, out, out_step)
        call7(leaves[width], (weights, stride, rows, pointers, pointers + 8 * WIDEST, length, weights))
        done += width


@inline
def _sums(leaves: Any, kept: int, stride: int, rows: int, length: int, x: int, x_row: int, x_head: int, group: int,
          out: int, out_step: int, columns: int, pointers: int, ahead: int) -> None:
    """out[c] = the sum of the kept rows, each times its factor in x[c]. What lies `ahead` so many bytes is read next."""
    done = 0
    while done < columns:
        width = leaf_width(leaves, columns - done)
        _point(pointers, done, width, x, x_row, x_head, group, out, out_step)
        call7(leaves[width], (kept, stride, rows, pointers, pointers + 8 * WIDEST, length, ahead))
        ahead = 0
        done += width


@inline
def _cap(scores: Any, count: int, scale: Any, softcap: Any) -> None:
    """Keep the first `count` scores, times `scale`, within `softcap`: see `Heads`."""
    for t in range(count):
        scores[t] = softcap / scale * tanh(scores[t] * scale / softcap)


@inline
def _run_length(sequences: Any, row: int, end: int) -> int:
    """Rows from `row`, before `end`, that belong to the same text."""
    n = 1
    while row + n < end and sequences[row + n] == sequences[row]:
        n += 1
    return n


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def _attend_segment(args: int, row: int, rows: int, kv: int, start: int, scratch: int, sums_at: int, state_at: int,
                    leads: bool) -> None:
    """What the SEGMENT keys from `start` on add to the sums and states of some rows, no more than a leaf takes. `leads`: these
    rows read the segment first. Arguments: those of `attend`."""
    a = i64(args, 23)
    heads, kv_heads, size, value_size, bits, window = a[3], a[4], a[5], a[6], a[15], a[18]
    group, key_leaves, value_leaves = heads // kv_heads, i64(a[13], WIDEST + 1), i64(a[14], WIDEST + 1)
    scale, softcap = np.float32(f64(args, 23)[20]), np.float32(f64(args, 23)[21])
    key_bytes, value_bytes = head_bytes(bits, size), head_bytes(bits, value_size)
    columns = rows * group
    scores_at = scratch + 16 * WIDEST
    part_at = scores_at + 4 * columns * SEGMENT
    numbers = f32(scratch, 4)  # where pointers lie at other times
    sums, part, state = f32(sums_at, columns * value_size), f32(part_at, columns * value_size), f32(state_at, 2 * columns)
    positions = i32(a[7] + 4 * row, rows)
    blocks = i32(a[9] + 4 * i32(a[8], row + 1)[row] * a[10], a[10])
    queries = a[1] + 4 * (row * heads + kv * group) * size
    seen = max(positions[0] + 1 - window, 0) if window != 0 else 0  # the first token that any row sees
    end = min(start + SEGMENT, positions[rows - 1] + 1)
    first = max(start, seen // BLOCK_TOKENS * BLOCK_TOKENS)
    if first >= end:
        return
    padded = (end - start + BLOCK_TOKENS - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    first_values = a[12] + (blocks[first // BLOCK_TOKENS] * kv_heads + kv) * value_bytes
    for t in range(first, end, BLOCK_TOKENS):
        keys, ahead = a[11] + (blocks[t // BLOCK_TOKENS] * kv_heads + kv) * key_bytes, 0
        if leads:
            following = t + BLOCK_TOKENS
            ahead = first_values - keys
            if following < end:
                ahead = a[11] + (blocks[following // BLOCK_TOKENS] * kv_heads + kv) * key_bytes - keys
        _sums(key_leaves, keys, 2 * BLOCK_TOKENS, size, BLOCK_TOKENS, queries, 4 * heads * size, 4 * size, group,
              scores_at + 4 * (t - start), 4 * SEGMENT, columns, scratch, ahead)
    for c in range(columns):
        known = min(max(positions[c // group] + 1 - start, 0), SEGMENT)
        low = max(positions[c // group] + 1 - window - start, 0) if window != 0 else 0
        scores = f32(scores_at + 4 * c * SEGMENT, SEGMENT)
        if softcap != np.float32(0):
            _cap(scores, known, scale, softcap)
        numbers[0], numbers[1] = scale, state[2 * c]
        call6(a[22], (scores_at + 4 * c * SEGMENT, min(low, known), known, padded, scratch, scratch + 8))
        shrink = exp(state[2 * c] - numbers[2])  # what the weights of earlier segments are to be multiplied with
        state[2 * c], state[2 * c + 1] = numbers[2], state[2 * c + 1] * shrink + numbers[3]
        for i in range(c * value_size, (c + 1) * value_size):
            sums[i] *= shrink
    for t in range(first, end, BLOCK_TOKENS):
        values, ahead = a[12] + (blocks[t // BLOCK_TOKENS] * kv_heads + kv) * value_bytes, 0
        following = t + BLOCK_TOKENS
        if leads and following < end:
            ahead = a[12] + (blocks[following // BLOCK_TOKENS] * kv_heads + kv) * value_bytes - values
        elif leads and following <= positions[rows - 1]:
            ahead = a[11] + (blocks[following // BLOCK_TOKENS] * kv_heads + kv) * key_bytes - values
        _sums(value_leaves, values, value_size * bits // 8, min(BLOCK_TOKENS, end - t), value_size,
              scores_at + 4 * (t - start), 0, 4 * SEGMENT, columns, part_at, 4 * value_size, columns, scratch, ahead)
        for i in range(columns * value_size):
            sums[i] += part[i]


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def _attend_rows(args: int, row: int, rows: int, kv: int, scratch: int) -> None:
    """Attention of `rows` rows of one text in the heads that share key head `kv`. Arguments: those of `attend`."""
    a = i64(args, 23)
    heads, kv_heads, size, value_size, bits, window = a[3], a[4], a[5], a[6], a[15], a[18]
    group = heads // kv_heads
    columns, step = rows * group, _leaf_rows(group)
    sums_at = scratch + 16 * WIDEST + 4 * max(group, WIDEST) * (SEGMENT + value_size)
    state_at = sums_at + 4 * columns * value_size
    sums, state = f32(sums_at, columns * value_size), f32(state_at, 2 * columns)  # the maximum and the sum of each column
    for i in range(columns * value_size):
        sums[i] = np.float32(0)
    for c in range(columns):
        state[2 * c], state[2 * c + 1] = np.float32(-1e30), np.float32(0)
        if a[19] != 0:  # a sink is a score without a value
            state[2 * c], state[2 * c + 1] = f32(a[19], heads)[kv * group + c % group], np.float32(1)
    if bits != 16:
        spread_heads(a[1] + 4 * (row * heads + kv * group) * size, rows, heads, group, size)
    positions = i32(a[7] + 4 * row, rows)
    seen = max(positions[0] + 1 - window, 0) if window != 0 else 0
    for start in range(seen // SEGMENT * SEGMENT, positions[rows - 1] + 1, SEGMENT):
        for r in range(0, rows, step):
            at = r * group
            _attend_segment(args, row + r, min(step, rows - r), kv, start, scratch, sums_at + 4 * at * value_size,
                            state_at + 8 * at, r == 0)  # fmt: skip
    for c in range(columns):
        out = f32(a[2] + 4 * ((row + c // group) * heads + kv * group + c % group) * value_size, value_size)
        for i in range(value_size):
            out[i] = sums[c * value_size + i] / state[2 * c + 1]
    if bits != 16:
        spread_heads(a[2] + 4 * (row * heads + kv * group) * value_size, rows, heads, group, value_size)


@driver
def attend(args: int, counter: int, thread: int, threads: int) -> None:
    """out[row] = softmax(q k / scale) v over the row's sequence up to its position.

    Rows of one text are taken several at a time, as columns of the same products, and many of them pass over a segment of 512
    keys before the next one is read. Segments follow one another with a running maximum, and weights beyond a row's position
    are zeros, so the order of every sum depends on the position alone.
    Arguments: address of the row count, q, out f32, heads, kv heads, key size, value size, positions, sequences, block
    tables i32, blocks a table, key cache, value cache, leaves for keys, leaves for values, bits of a value in the cache,
    scratch, scratch bytes, window (0: none), sinks (heads,) f32 or 0, scale, softcap (f64), the leaf `weigh`. Where the cache
    is quantised, q is spread in place.
    """
    a = i64(args, 23)
    count, kv_heads = i64(a[0], 1)[0], a[4]
    group = a[3] // kv_heads
    tile = _tile_rows(group, count, kv_heads, threads)
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
