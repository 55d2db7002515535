"""Drivers of attention over the paged cache: rotary tables, rotate and store, attend. What is computed: see `segments`."""

from __future__ import annotations

import math
from typing import Any

from runtime.core import BLOCK_TOKENS
from runtime.kernels.desk import claim, commit, helps, show, take
from runtime.kernels.driver import FAST, driver, inline, rms_scale, row_driver
from runtime.kernels.jit import njit
from runtime.kernels.matmul import ask, copy
from runtime.kernels.memory import f32, f64, fetch_add, i32, i64
from runtime.kernels.segments import (
    COLUMNS,
    FIELDS,
    HEAD,
    SEGMENT,
    attend_rows,
    begin,
    finish,
    first_segment,
    join,
    leaf_rows,
    places,
    prepare,
    segment,
)
from runtime.kernels.store import head_bytes, spread_heads, store_key, store_value

ITEMS = 4  # pieces of work for each thread, where there are rows enough
LINE_ROWS = 32  # whose keys, transposed, are a few cache lines: two threads that write to one would wait for each other
SPLIT_ROWS = 16  # at the most in a step, where segments are pieces of their own
LONGEST_PIECE = 4  # segments
NEOX, INTERLEAVED = 0, 1  # which two values of a head turn together: (i, i + half) or (2 i, 2 i + 1)


@inline
def _tile_rows(group: Any, count: Any, kv_heads: Any, threads: int) -> Any:
    """Rows that are one piece of work: whole leaves of them, and so many pieces that no thread has to wait long."""
    few = leaf_rows(group)
    wanted = min(count * kv_heads // (ITEMS * threads), COLUMNS // group)
    return max(wanted // few * few, few)


@row_driver
def rotary_table(args: int, desk: int, thread: int, threads: int) -> None:
    """cos and sin of each row's position times each frequency, times `magnitude`.

    Arguments: address of the row count, positions i32, frequencies f64, table (rows, 2, half) f32, half, magnitude (f64).
    """
    a = i64(args, 6)
    count, half, magnitude = i64(a[0], 1)[0], a[4], f64(args, 6)[5]
    positions, frequencies = i32(a[1], count), f64(a[2], half)
    while True:
        row = claim(desk, 1)
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
    if style == NEOX:  # a loop for each style, so that this one is vectorised
        for i in range(half):
            a, b = x[i], x[half + i]
            x[i] = a * table[i] - b * table[half + i]
            x[half + i] = a * table[half + i] + b * table[i]
    else:
        for i in range(half):
            a, b = x[2 * i], x[2 * i + 1]
            x[2 * i] = a * table[i] - b * table[half + i]
            x[2 * i + 1] = a * table[half + i] + b * table[i]


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
def rotate_store(args: int, desk: int, thread: int, threads: int) -> None:
    """Norm (where there is one) and turn q and k in place, and write k and v into the cache, which leaves nothing of use where
    they were. Where that is quantised, q is spread too.

    Arguments: address of the row count, q, k, v f32, q norm, k norm (f32 or 0), rotary table, half, style, heads, kv heads,
    key size, value size, positions, sequences, block tables i32, blocks a table, key cache, value cache, bits of a value
    there, eps, eps of a norm of the values (f64; 0: there is none).
    """
    a = i64(args, 22)
    value_eps = f64(args, 22)[21]
    count, half, style = i64(a[0], 1)[0], a[7], a[8]
    heads, kv_heads, size, value_size, bits, eps = a[9], a[10], a[11], a[12], a[19], f64(args, 22)[20]
    positions, sequences = i32(a[13], count), i32(a[14], count)
    group = heads // kv_heads
    tile = 1 if count <= SPLIT_ROWS else min(LINE_ROWS, max(1, count * kv_heads // (ITEMS * threads)))
    tiles = (count + tile - 1) // tile
    while True:
        item = claim(desk, 1)
        if item >= tiles * kv_heads:
            return
        kv, first = item % kv_heads, item // kv_heads * tile
        for row in range(first, min(first + tile, count)):
            place = row * kv_heads + kv
            q, k, v = a[1] + 4 * place * group * size, a[2] + 4 * place * size, a[3] + 4 * place * value_size
            if row + 1 < count:
                ask(q + 4 * kv_heads * group * size, 4 * group * size)
                ask(k + 4 * kv_heads * size, 4 * size)
                ask(v + 4 * kv_heads * value_size, 4 * value_size)
            turn_heads(q, k, a[4], a[5], f32(a[6] + 8 * row * half, 2 * half), half, style, group, 1, size, eps)
            block = i32(a[15] + 4 * sequences[row] * a[16], a[16])[positions[row] // BLOCK_TOKENS]
            slot, head = positions[row] % BLOCK_TOKENS, block * kv_heads + kv
            store_key(k, size, bits, a[17] + head * head_bytes(bits, size), slot)
            if value_eps != 0:
                _norm_value(f32(v, value_size), value_size, value_eps)
            store_value(v, value_size, bits, a[18] + head * head_bytes(bits, value_size), slot)
            if bits != 16:
                spread_heads(q, 1, group, group, size)


@inline
def _run_length(sequences: Any, row: int, end: int) -> int:
    """Rows from `row`, before `end`, that belong to the same text."""
    n = 1
    while row + n < end and sequences[row + n] == sequences[row]:
        n += 1
    return n


@inline
def _attend_many(args: int, desk: int, thread: int, threads: int, count: int) -> None:
    """A piece of work is some rows and a key head."""
    a = i64(args, FIELDS)
    kv_heads = a[4]
    tile = _tile_rows(a[3] // kv_heads, count, kv_heads, threads)
    sequences = i32(a[8], count)
    tiles = (count + tile - 1) // tile
    while True:
        item = claim(desk, 1)
        if item >= tiles * kv_heads:
            return
        first = (tiles - 1 - item // kv_heads) * tile  # the longest first
        end = min(first + tile, count)
        while first < end:
            rows = _run_length(sequences, first, end)
            attend_rows(args, first, rows, item % kv_heads, a[16] + thread * a[17])
            first += rows


@inline
def _unit(args: int, row: int, count: int) -> Any:
    """Rows from `row` on that are taken together where there are few, the first segment that they see, and how many."""
    a = i64(args, FIELDS)
    positions = i32(a[7], count)
    rows = min(_run_length(i32(a[8], count), row, count), leaf_rows(a[3] // a[4]))
    first = first_segment(positions[row], a[18])
    return rows, first, positions[row + rows - 1] // SEGMENT + 1 - first


@inline
def _segments(args: int, count: int) -> int:
    """Segments of all rows and key heads, those of rows that are taken together once for each of them."""
    total = row = 0
    while row < count:
        rows, _, segments = _unit(args, row, count)
        total += rows * segments * i64(args, FIELDS)[4]
        row += rows
    return total


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def _attend_few(args: int, desk: int, thread: int, count: int, span: int) -> None:
    """A piece of work is `span` segments of the rows of a unit and a key head; who does the last of them adds them up."""
    a = i64(args, FIELDS)
    kv_heads, group, value_size = a[4], a[3] // a[4], a[6]
    record, scratch = 4 * (HEAD + value_size), a[16] + thread * a[17]
    totals = places(scratch, group, value_size)[2]
    while True:
        piece = item = take(desk)
        row = unit = rows = first = segments = 0
        records = a[23]  # of the unit
        while row < count:
            rows, first, segments = _unit(args, row, count)
            pieces = (segments + span - 1) // span * kv_heads
            if item < pieces:
                break
            item, records, row, unit = item - pieces, records + rows * segments * a[3] * record, row + rows, unit + 1
        if row >= count:
            return
        kv, done, columns = item % kv_heads, item // kv_heads * span, rows * group
        n = min(span, segments - done)
        kept = show(desk, piece, n * columns * record)
        if kept < 0:
            return
        records += kv * segments * columns * record
        place = records + done * columns * record
        prepare(args, row, rows, kv, scratch)
        for s in range(n):
            found = (kept if kept != 0 else place) + s * columns * record
            segment(args, row, rows, kv, (first + done + s) * SEGMENT, scratch, found)
        if not commit(desk, kept):
            return
        if kept != 0:
            copy(kept, place, n * columns * (HEAD + value_size))
        counted = a[25] + 8 * (unit * kv_heads + kv)
        if fetch_add(counted, n) + n == segments:
            i64(counted, 1)[0] = 0
            begin(args, kv, columns, totals)
            for s in range(segments):
                join(totals, records + s * columns * record, columns, value_size)
            finish(args, row, rows, kv, totals)


@driver
def attend(args: int, desk: int, thread: int, threads: int) -> None:
    """out[row] = softmax(q k / scale) v over the row's sequence up to its position.

    Of many rows, several of one text pass over a segment before the next one is read, as columns of the same products; of few
    rows, segments are pieces of their own. The sums are the same either way (see `segments`).
    Arguments: address of the row count, q, out f32, heads, kv heads, key size, value size, positions, sequences, block
    tables i32, blocks a table, key cache, value cache, leaves for keys, leaves for values, bits of a value in the cache,
    scratch, scratch bytes, window (0: none), sinks (heads,) f32 or 0, scale, softcap (f64), the leaf `weigh`, records, how many
    there is room for, pieces done (SPLIT_ROWS * kv heads i64, zeros).
    """
    a = i64(args, FIELDS)
    count = i64(a[0], 1)[0]
    if threads > 1 and count <= SPLIT_ROWS:
        total = _segments(args, count)
        if total * (a[3] // a[4]) <= a[24]:
            _attend_few(args, desk, thread, count, max(min(total // (ITEMS * threads), LONGEST_PIECE), 1))
            return
    if not helps(desk):  # a helper that is late finds another step's rows here
        _attend_many(args, desk, thread, threads, count)
