"""Attention over the paged cache, segment by segment of 512 keys.

What the keys of a segment give is a record for each column, that is row and head: the maximum of the scores, the sum of the
weights, and the weighted sum of the values. Records are added up in the order of their segments, so the order of every sum
depends on the position of its row alone, however the work is divided.

One layer's cache: keys and values, (blocks, kv heads) of what `kept` describes. Keys are transposed: so scores and weighted sums
are both sums of rows, each times a factor, and the leaves need no sum across lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.core import BLOCK_TOKENS
from runtime.kernels.activations import tanh
from runtime.kernels.driver import FAST, exp, inline
from runtime.kernels.jit import njit
from runtime.kernels.matmul import WIDEST, fill, leaf_width
from runtime.kernels.memory import call6, call7, f32, f64, i32, i64
from runtime.kernels.store import head_bytes, spread_heads

SEGMENT = 512  # keys whose scores a thread holds at a time
COLUMNS = 128  # at the most (heads of rows) that share what is read of a segment, while it is in the core's cache
HEAD = 16  # floats of a record before the values: the maximum, the sum of weights, and what brings them to a cache line
LEAST = np.float32(-1e30)  # below every score
FIELDS = 26  # of the arguments of `attention.attend`


def scratch_bytes(group: int, value_size: int) -> int:
    """Bytes of scratch that `attend` needs a thread: pointers, scores, sums and records of each column."""
    most = max(group, WIDEST)
    floats = most * (SEGMENT + value_size) + (most + max(most, COLUMNS)) * (HEAD + value_size)
    return (16 * WIDEST + 4 * floats + 63) // 64 * 64


@inline
def leaf_rows(group: Any) -> Any:
    """Rows whose heads fill the widest leaf."""
    return max(WIDEST // group, 1)


@inline
def _point(pointers: int, first: int, width: int, x: int, x_row: int, x_head: int, group: int, out: int, out_step: int) -> None:
    """The addresses of `width` columns for a leaf; column c is head c % group of row c // group."""
    inputs, outputs = i64(pointers, WIDEST), i64(pointers + 8 * WIDEST, WIDEST)
    row, head = first // group, first % group  # once: divisions take longer than all else here
    for c in range(width):
        inputs[c] = x + row * x_row + head * x_head
        outputs[c] = out + (first + c) * out_step
        head += 1
        if head == group:
            row, head = row + 1, 0


@inline
def products(leaves: Any, weights: int, stride: int, rows: int, length: int, x: int, x_row: int, x_head: int, group: int,
             out: int, out_step: int, columns: int, pointers: int) -> None:
    """out[c][r] = weights row r . x[c], by leaves `dot`; columns: see `_point`."""
    done = 0
    while done < columns:
        width = leaf_width(leaves, columns - done)
        _point(pointers, done, width, x, x_row, x_head, group, out, out_step)
        fill(i64(pointers, WIDEST), i64(pointers + 8 * WIDEST, WIDEST), width)
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


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def segment(args: int, row: int, rows: int, kv: int, start: int, scratch: int, found: int, leads: bool) -> None:
    """What the SEGMENT keys from `start` on give some rows of a text, no more than a leaf takes: a record a column at `found`.
    `leads`: these rows read the segment first. Arguments: those of `attention.attend`."""
    a = i64(args, FIELDS)
    heads, kv_heads, size, value_size, bits, window = a[3], a[4], a[5], a[6], a[15], a[18]
    group, key_leaves, value_leaves = heads // kv_heads, i64(a[13], WIDEST + 1), i64(a[14], WIDEST + 1)
    scale, softcap = np.float32(f64(args, FIELDS)[20]), np.float32(f64(args, FIELDS)[21])
    key_bytes, value_bytes = head_bytes(bits, size), head_bytes(bits, value_size)
    columns, record = rows * group, HEAD + value_size
    scores_at = scratch + 16 * WIDEST
    part_at = scores_at + 4 * columns * SEGMENT
    numbers = f32(scratch, 4)  # where pointers lie at other times
    records, part = f32(found, columns * record), f32(part_at, columns * value_size)
    positions = i32(a[7] + 4 * row, rows)
    blocks = i32(a[9] + 4 * i32(a[8], row + 1)[row] * a[10], a[10])
    queries = a[1] + 4 * (row * heads + kv * group) * size
    for i in range(columns * record):
        records[i] = np.float32(0)
    last = positions[rows - 1]
    seen = max(positions[0] + 1 - window, 0) if window != 0 else 0  # the first token that any row sees
    end = min(start + SEGMENT, last + 1)
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
        numbers[0], numbers[1] = scale, LEAST
        call6(a[22], (scores_at + 4 * c * SEGMENT, min(low, known), known, padded, scratch, scratch + 8))
        records[c * record], records[c * record + 1] = numbers[2], numbers[3]
    for t in range(first, end, BLOCK_TOKENS):
        values, ahead = a[12] + (blocks[t // BLOCK_TOKENS] * kv_heads + kv) * value_bytes, 0
        following = t + BLOCK_TOKENS
        if leads and following < end:
            ahead = a[12] + (blocks[following // BLOCK_TOKENS] * kv_heads + kv) * value_bytes - values
        elif leads and following <= last:
            ahead = a[11] + (blocks[following // BLOCK_TOKENS] * kv_heads + kv) * key_bytes - values
        _sums(value_leaves, values, value_size * bits // 8, min(BLOCK_TOKENS, end - t), value_size,
              scores_at + 4 * (t - start), 0, 4 * SEGMENT, columns, part_at, 4 * value_size, columns, scratch, ahead)
        for c in range(columns):
            for i in range(value_size):
                records[c * record + HEAD + i] += part[c * value_size + i]


@inline
def begin(args: int, kv: int, columns: int, totals: int) -> None:
    """Records of nothing yet; a sink is a score without a value."""
    a = i64(args, FIELDS)
    heads, group, record = a[3], a[3] // a[4], HEAD + a[6]
    for c in range(columns):
        total = f32(totals + 4 * c * record, record)
        for i in range(record):
            total[i] = np.float32(0)
        total[0] = LEAST
        if a[19] != 0:
            total[0], total[1] = f32(a[19], heads)[kv * group + c % group], np.float32(1)


@inline
def join(totals: int, found: int, columns: int, value_size: int) -> None:
    """Add the records of a segment to those of all before."""
    record = HEAD + value_size
    for c in range(columns):
        total, more = f32(totals + 4 * c * record, record), f32(found + 4 * c * record, record)
        if more[1] != np.float32(0):  # else none of its keys is seen
            top = max(total[0], more[0])
            old, new = exp(total[0] - top), exp(more[0] - top)
            total[0], total[1] = top, total[1] * old + more[1] * new
            for i in range(HEAD, record):
                total[i] = total[i] * old + more[i] * new


@inline
def finish(args: int, row: int, rows: int, kv: int, totals: int) -> None:
    """Write what the records of all segments make of some rows."""
    a = i64(args, FIELDS)
    heads, group, value_size = a[3], a[3] // a[4], a[6]
    record = HEAD + value_size
    for c in range(rows * group):
        out = f32(a[2] + 4 * ((row + c // group) * heads + kv * group + c % group) * value_size, value_size)
        total = f32(totals + 4 * c * record, record)
        for i in range(value_size):
            out[i] = total[HEAD + i] / total[1]
    if a[15] != 16:
        spread_heads(a[2] + 4 * (row * heads + kv * group) * value_size, rows, heads, group, value_size)


@inline
def first_segment(position: int, window: int) -> int:
    """The first segment of which a row at this position sees something."""
    return max(position + 1 - window, 0) // SEGMENT if window != 0 else 0


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def attend_rows(args: int, row: int, rows: int, kv: int, scratch: int) -> None:
    """Attention of `rows` rows of one text in the heads that share key head `kv`. Arguments: those of `attention.attend`."""
    a = i64(args, FIELDS)
    group, value_size = a[3] // a[4], a[6]
    record, step = 4 * (HEAD + value_size), leaf_rows(group)
    found = scratch + 16 * WIDEST + 4 * max(group, WIDEST) * (SEGMENT + value_size)
    totals = found + max(group, WIDEST) * record
    begin(args, kv, rows * group, totals)
    positions = i32(a[7] + 4 * row, rows)
    for number in range(first_segment(positions[0], a[18]), positions[rows - 1] // SEGMENT + 1):
        for r in range(0, rows, step):
            count = min(step, rows - r)
            segment(args, row + r, count, kv, number * SEGMENT, scratch, found, r == 0)
            join(totals + r * group * record, found, count * group, value_size)
    finish(args, row, rows, kv, totals)
