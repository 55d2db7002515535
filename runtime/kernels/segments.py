"""Attention over the paged cache, segment by segment of 512 keys.

What the keys of a segment give is a record for each column, that is row and head: the maximum of the scores, the sum of the
weights, and the weighted sum of the values. Records are added up in the order of their segments, so the order of every sum
depends on the position of its row alone, however the work is divided.

One layer's cache: keys and values, (blocks, kv heads) of what `kept` describes. Keys are transposed: so scores and weighted sums
are both sums of rows, each times a factor, and the leaves need no sum across lanes. Where they are kept in 16 bits queries and
weights are such whole numbers too: products and their sums are exact, whatever the number of columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.core import BLOCK_TOKENS
from runtime.kernels.activations import tanh
from runtime.kernels.driver import FAST, exp, inline
from runtime.kernels.jit import njit
from runtime.kernels.matmul import WIDEST, ask, copy, fill, leaf_width
from runtime.kernels.memory import call7, f32, f64, i32, i64
from runtime.kernels.store import head_bytes, spread_heads, store_query, words_bytes

SEGMENT = 512  # keys whose scores a thread holds at a time
LANES = 16  # keys of a block are taken so many at a time: what no row sees of it is left out
COLUMNS = 128  # at the most (heads of rows) that share what is read of a segment, while it is in the core's cache
HEAD = 16  # floats of a record before the values: the maximum, the sum of weights, what values have yet to be multiplied with,
# and what brings them to a cache line
LEAST = np.float32(-1e30)  # below every score
FIELDS = 26  # of the arguments of `attention.attend`


def scratch_bytes(group: int, size: int, value_size: int) -> int:
    """Bytes of scratch that `attend` needs a thread: pointers, scores, a query with its scale, and two records for each column,
    and the scales of a segment's values."""
    a_column = SEGMENT + (size + 1) // 2 + 1 + 2 * (HEAD + value_size)
    return (16 * WIDEST + 4 * (max(group, COLUMNS) * a_column + SEGMENT) + 63) // 64 * 64


@inline
def places(scratch: int, group: int, value_size: int) -> tuple[int, int, int]:
    """Where in scratch scores lie, the records of a segment, and those of all before it."""
    columns = max(group, COLUMNS)
    scores = scratch + 16 * WIDEST
    found = scores + 4 * columns * SEGMENT
    return scores, found, found + 4 * columns * (HEAD + value_size)


@inline
def _words(scratch: int, group: int, size: int, value_size: int) -> tuple[int, int, int]:
    """Where queries in whole numbers lie, their scales, and those of a segment's values."""
    columns = max(group, COLUMNS)
    queries = places(scratch, group, value_size)[2] + 4 * columns * (HEAD + value_size)
    scales = queries + columns * words_bytes(size)
    return queries, scales, scales + 4 * columns


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
def _before(positions: Any, t: int) -> int:
    """Rows, in the order of their positions, that stand before token t and do not see it."""
    rows = 0
    while positions[rows] < t:
        rows += 1
    return rows


@inline
def _cap(scores: Any, count: int, scale: Any, softcap: Any) -> None:
    """Keep the first `count` scores, times `scale`, within `softcap`: see `Heads`."""
    for t in range(count):
        scores[t] = softcap / scale * tanh(scores[t] * scale / softcap)


@inline
def _block(a: Any, field: int, row: int, kv: int, t: int, head: int) -> Any:
    """Where the keys (field 11) or values (12), `head` bytes, of the block lie that begins with token t of the text of `row`."""
    blocks = i32(a[9] + 4 * i32(a[8], row + 1)[row] * a[10], a[10])
    return a[field] + (blocks[t // BLOCK_TOKENS] * a[4] + kv) * head


@inline
def _tokens_seen(positions: Any, group: int, columns: int, t: int) -> Any:
    """How many tokens of the block that begins with t the row of the last of so many columns sees; it sees some."""
    return min(positions[(columns - 1) // group] + 1 - t, BLOCK_TOKENS)


@inline
def prepare(args: int, row: int, rows: int, kv: int, scratch: int) -> None:
    """The queries of some rows in the heads that share a key head as whole numbers, where keys are such."""
    a = i64(args, FIELDS)
    heads, size, group = a[3], a[5], a[3] // a[4]
    if a[15] != 16:
        return
    words, scales_at, _ = _words(scratch, group, size, a[6])
    scales = f32(scales_at, rows * group)
    for c in range(rows * group):
        query = a[1] + 4 * ((row + c // group) * heads + kv * group + c % group) * size
        if c + group < rows * group:
            ask(query + 4 * heads * size, 4 * size)
        scales[c] = store_query(query, size, words + c * words_bytes(size))


@inline
def _score(args: int, row: int, rows: int, kv: int, start: int, first: int, end: int, scratch: int) -> None:
    """The scores of the keys from `first` on, block by block for all columns. A row's own block is the last that it looks at."""
    a = i64(args, FIELDS)
    heads, size, leaves = a[3], a[5], i64(a[13], WIDEST + 1)
    group, head = heads // a[4], head_bytes(a[15], size)
    columns, positions = rows * group, i32(a[7] + 4 * row, rows)
    scores = places(scratch, group, a[6])[0]
    queries, of_row, of_head = a[1] + 4 * (row * heads + kv * group) * size, 4 * heads * size, 4 * size
    if a[15] == 16:
        queries, of_head = _words(scratch, group, size, a[6])[0], words_bytes(size)
        of_row = group * of_head
    for t in range(first, end, BLOCK_TOKENS):
        keys, following = _block(a, 11, row, kv, t, head), t + BLOCK_TOKENS
        if following < end:
            ahead = _block(a, 11, row, kv, following, head) - keys
        else:
            ahead = _block(a, 12, row, kv, first, head_bytes(a[15], a[6])) - keys
        done = _before(positions, t) * group
        while done < columns:
            width = leaf_width(leaves, columns - done)
            seen = (_tokens_seen(positions, group, done + width, t) + LANES - 1) // LANES * LANES
            _point(scratch, done, width, queries, of_row, of_head, group, scores + 4 * (t - start), 4 * SEGMENT)
            call7(leaves[width], (keys, 4 * BLOCK_TOKENS, size, scratch, scratch + 8 * WIDEST, seen, ahead))
            done, ahead = done + width, 0


@inline
def _value_scales(args: int, row: int, kv: int, start: int, first: int, end: int, scratch: int) -> Any:
    """Bring the scales of a segment's values together; where they lie then, or 0 where values are not whole numbers."""
    a = i64(args, FIELDS)
    size, bits = a[6], a[15]
    if bits != 16:
        return 0
    together, head = _words(scratch, a[3] // a[4], a[5], size)[2], head_bytes(bits, size)
    for t in range(first, end, BLOCK_TOKENS):
        scales = _block(a, 12, row, kv, t, head) + words_bytes(size) * BLOCK_TOKENS
        copy(scales, together + 4 * (t - start), BLOCK_TOKENS)
    return together


@inline
def _weigh(args: int, row: int, rows: int, start: int, padded: int, scales: int, scratch: int, found: int) -> None:
    """Weights of the scores of `padded` keys, with the head of each column's record. `scales`: those of the values, or 0."""
    a = i64(args, FIELDS)
    group, window, record = a[3] // a[4], a[18], HEAD + a[6]
    softcap, positions, numbers = np.float32(f64(args, FIELDS)[21]), i32(a[7] + 4 * row, rows), f32(scratch, 5)
    scores = places(scratch, group, a[6])[0]
    queries = f32(_words(scratch, group, a[5], a[6])[1], rows * group)
    for c in range(rows * group):
        position, of_column, scale = positions[c // group], scores + 4 * c * SEGMENT, np.float32(f64(args, FIELDS)[20])
        if scales != 0:
            scale *= queries[c]
        known = min(max(position + 1 - start, 0), SEGMENT)
        low = max(position + 1 - window - start, 0) if window != 0 else 0
        if softcap != np.float32(0):
            _cap(f32(of_column, SEGMENT), known, scale, softcap)
        numbers[0], numbers[1], numbers[4] = scale, LEAST, np.float32(1)
        call7(a[22], (of_column, min(low, known), known, padded, scratch, scales, scratch + 8))
        head = f32(found + 4 * c * record, 3)
        head[0], head[1], head[2] = numbers[2], numbers[3], numbers[4]


@inline
def _sum(args: int, row: int, rows: int, kv: int, start: int, first: int, end: int, scratch: int, found: int) -> None:
    """Add the values from `first` on, times their weights, to the records, block by block for all columns."""
    a = i64(args, FIELDS)
    size, bits, leaves = a[6], a[15], i64(a[14], WIDEST + 1)
    group, head, record = a[3] // a[4], head_bytes(bits, size), HEAD + size
    columns, positions = rows * group, i32(a[7] + 4 * row, rows)
    weights = places(scratch, group, size)[0]
    together = 2 if bits == 16 else 1  # tokens of a row, and ...
    stride, weight = (4 * size, 2) if bits == 16 else (size * bits // 8, 4)  # ... bytes of it, and of a weight
    inputs, outputs = i64(scratch, WIDEST), i64(scratch + 8 * WIDEST, WIDEST)
    for t in range(first, end, BLOCK_TOKENS):
        values, following, ahead = _block(a, 12, row, kv, t, head), t + BLOCK_TOKENS, 0
        if following < end:
            ahead = _block(a, 12, row, kv, following, head) - values
        elif following <= positions[rows - 1]:
            ahead = _block(a, 11, row, kv, following, head_bytes(bits, a[5])) - values
        done = _before(positions, t) * group
        while done < columns:
            width = leaf_width(leaves, columns - done)
            for c in range(width):
                inputs[c] = weights + 4 * (done + c) * SEGMENT + weight * (t - start)
                outputs[c] = found + 4 * ((done + c) * record + HEAD)
            count = (_tokens_seen(positions, group, done + width, t) + together - 1) // together
            call7(leaves[width], (values, stride, count, scratch, scratch + 8 * WIDEST, size, ahead))
            done, ahead = done + width, 0


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def segment(args: int, row: int, rows: int, kv: int, start: int, scratch: int, found: int) -> None:
    """What the SEGMENT keys from `start` on give some rows of a text, of at most COLUMNS heads, in `found`: a record a column.
    `prepare` comes before. Arguments: those of `attention.attend`."""
    a = i64(args, FIELDS)
    columns, window, positions = rows * (a[3] // a[4]), a[18], i32(a[7] + 4 * row, rows)
    records = f32(found, columns * (HEAD + a[6]))
    for i in range(columns * (HEAD + a[6])):
        records[i] = np.float32(0)
    seen = max(positions[0] + 1 - window, 0) if window != 0 else 0  # the first token that any row sees
    end = min(start + SEGMENT, positions[rows - 1] + 1)
    first = max(start, seen // BLOCK_TOKENS * BLOCK_TOKENS)
    if first >= end:
        return
    padded = (end - start + BLOCK_TOKENS - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    _score(args, row, rows, kv, start, first, end, scratch)
    scales = _value_scales(args, row, kv, start, first, end, scratch)
    _weigh(args, row, rows, start, padded, scales, scratch, found)
    _sum(args, row, rows, kv, start, first, end, scratch, found)


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
            new *= more[2]
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
    group = a[3] // a[4]
    _, found, totals = places(scratch, group, a[6])
    prepare(args, row, rows, kv, scratch)
    begin(args, kv, rows * group, totals)
    positions = i32(a[7] + 4 * row, rows)
    for number in range(first_segment(positions[0], a[18]), positions[rows - 1] // SEGMENT + 1):
        segment(args, row, rows, kv, number * SEGMENT, scratch, found)
        join(totals, found, rows * group, a[6])
    finish(args, row, rows, kv, totals)
