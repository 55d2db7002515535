"""Drivers for matrix products: one activation against several matrices, and against the experts that a router chose.

The weights of a piece (some rows of one matrix) are read once and used for every activation row, several of them
("columns") at a time by the widest leaf that fits. A (weight row, activation row) sum is the same whatever leaf made it.

While a piece ends, the leaf fetches the beginning of the one that its thread takes next if all threads are equally fast:
memory does not wait between pieces.

Rows of a type that is costly to take apart are, for many activation rows, made strips of unpacked blocks first, a strip at a time
(see `runtime.quants.unpacked`); the sums are the same bits.

Where few activation rows are multiplied, the sums of a piece are kept aside until they count (see `desk`).
"""

from __future__ import annotations

from typing import Any

from runtime.kernels.activations import activate
from runtime.kernels.desk import commit, show, still, take
from runtime.kernels.driver import driver, inline
from runtime.kernels.memory import call4, call7, f32, i32, i64

WIDEST = 8  # columns of the widest leaf
PIECES = 4  # pieces a thread should find in a product: fewer stream better, more even out threads of different speed
MANY = 12  # columns for which unpacking pays
MATRIX = 15  # int64 fields of one matrix in the arguments, in this order:
# weights, bytes a row, rows, activations, bytes an activation row, outputs, bytes an output row, blocks a row, leaves, bias,
# leaf that unpacks (or 0), leaves for what it makes, where it makes that, bytes there a thread, rows that it takes
# `leaves`: WIDEST + 1 addresses; [c] is the leaf for c columns (see `fill`), 0 where there is none. `bias`: f32 or 0.


@inline
def leaf_width(leaves: Any, columns: int) -> int:
    """The most columns, at most `columns`, that a leaf takes, or one of a column more: see `fill`."""
    width = min(columns, WIDEST)
    while leaves[width] == 0:
        width -= 1
    return width


@inline
def fill(inputs: Any, outputs: Any, width: int) -> None:
    """Complete the pointers of `width` columns: three and seven, where a table has leaves for them, are multiplied by those for
    four and eight, in which the last column stands twice. That takes less time than a leaf more."""
    if width % 4 == 3:
        inputs[width], outputs[width] = inputs[width - 1], outputs[width - 1]


@inline
def _add_bias(bias: int, out: int, rows: int) -> None:
    b, y = f32(bias, rows), f32(out, rows)
    for i in range(rows):
        y[i] += b[i]


@inline
def copy(source: int, target: int, count: int) -> None:
    """`count` float32 from one address to another."""
    x, y = f32(source, count), f32(target, count)
    for i in range(count):
        y[i] = x[i]


@inline
def _after_piece(args: int, m: int, matrices: int, first: int, step: int) -> int:
    """Where the weights lie `step` rows after row `first` of matrix m, or those of the next matrix."""
    w = i64(args + 8 * (5 + MATRIX * m), MATRIX)
    if first + step < w[2]:
        return int(w[0] + (first + step) * w[1])
    if m + 1 < matrices:
        return int(i64(args + 8 * (5 + MATRIX * (m + 1)), MATRIX)[0])
    return int(w[0] + w[2] * w[1])


@inline
def _strips(matrix: int, rows: int, columns: int) -> tuple[int, int]:
    """Of a piece of so many rows, the strips that are unpacked for so many columns, and the parts: these, and what is left."""
    w = i64(matrix, MATRIX)
    strips = rows // w[14] if w[10] != 0 and columns >= MANY else 0
    return strips, strips + 1 if strips * w[14] < rows else strips


@inline
def _part(matrix: int, weights: int, rows: int, strips: int, number: int, thread: int) -> tuple[int, int, int, int, int]:
    """Part `number` of a piece, a strip, which is unpacked now, or all rows that are not in strips: the first row and how many,
    where they lie, their stride, and their leaves."""
    w = i64(matrix, MATRIX)
    at = number * w[14]
    if number == strips:
        return at, rows - at, weights + at * w[1], w[1], w[8]
    place = w[12] + thread * w[13]
    call4(w[10], (weights + at * w[1], w[1], place, w[7]))
    return at, w[14], place, w[13] // w[14], w[11]


@driver
def linear(args: int, desk: int, thread: int, threads: int) -> None:
    """out[i] = W x[i] + bias for every row i of x, for several W at once.

    Arguments: address of the row count, pieces in all, rows a piece, scratch (2 * WIDEST int64 a thread), matrices, then
    MATRIX fields each.
    """
    head = i64(args, 5)
    count, pieces, step, matrices = i64(head[0], 1)[0], head[1], head[2], head[4]
    scratch = head[3] + thread * 16 * WIDEST
    inputs, outputs = i64(scratch, WIDEST), i64(scratch + 8 * WIDEST, WIDEST)
    while True:
        piece = take(desk)
        if piece >= pieces:
            return
        kept = show(desk, piece, 4 * count * step)
        if kept < 0:
            return
        m = 0
        while m < matrices - 1:  # which matrix the piece belongs to
            in_matrix = (i64(args + 8 * (5 + MATRIX * m), MATRIX)[2] + step - 1) // step
            if piece < in_matrix:
                break
            piece -= in_matrix
            m += 1
        w = i64(args + 8 * (5 + MATRIX * m), MATRIX)
        matrix, first = args + 8 * (5 + MATRIX * m), piece * step
        rows = min(step, w[2] - first)
        weights, following = w[0] + first * w[1], _after_piece(args, m, matrices, first, threads * step)
        strips, parts = _strips(matrix, rows, count)
        for number in range(parts):
            at, some, place, stride, table = _part(matrix, weights, rows, strips, number, thread)
            leaves = i64(table, WIDEST + 1)
            column = 0
            while column < count:
                width = leaf_width(leaves, count - column)
                for c in range(width):
                    inputs[c] = w[3] + (column + c) * w[4]
                    outputs[c] = w[5] + (column + c) * w[6] + 4 * (first + at)
                    if kept != 0:
                        outputs[c] = kept + 4 * ((column + c) * rows + at)
                fill(inputs, outputs, width)
                after = following if column + width == count else place
                call7(leaves[width], (place, stride, some, scratch, scratch + 8 * WIDEST, w[7], after))
                if w[9] != 0:
                    for c in range(width):
                        _add_bias(w[9] + 4 * (first + at), outputs[c], some)
                column += width
        if not commit(desk, kept):
            return
        if kept != 0:
            for column in range(count):
                copy(kept + 4 * column * rows, w[5] + column * w[6] + 4 * first, rows)


@inline
def _activate_pairs(args: int, order: Any, begin: int, end: int, first: int, rows: int) -> None:
    """activation(gate) * up of some rows of some pairs, in place. Arguments: those of `experts`."""
    gate, up = i64(args + 8 * 8, MATRIX), i64(args + 8 * (8 + MATRIX), MATRIX)
    for j in range(begin, end):
        to = order[j] * gate[6] + 4 * first
        activate(i64(args, 8)[7], gate[5] + to, up[5] + to, rows)


@inline
def piece_rows(rows: int, least: int, most: int, active: int, threads: int) -> int:
    """Rows of a piece, a multiple of `least`: few experts are divided finely, so that every thread has some of them."""
    wanted = active * rows // (threads * PIECES)
    return int(min(most, max(1, wanted // least) * least))


@driver
def experts(args: int, desk: int, thread: int, threads: int) -> None:
    """out[p] = W[expert of p] x[p // share] for every (token, expert) pair p, over the plan that `router.plan` made.

    With two matrices (gate, up) the first output becomes activation(gate) * up. A bias has the rows of all experts.
    Arguments: plan, experts, share, most rows a piece, least rows (the most are a multiple of it, or all), scratch, matrices,
    activation, then MATRIX fields each, and after them the bytes of one expert in each matrix.
    """
    head = i64(args, 8)
    n_experts, share, matrices, n_rows = head[1], head[2], head[6], i64(args + 8 * 8, MATRIX)[2]
    active = i32(head[0], 1)[0]
    step = piece_rows(n_rows, head[4], head[3], active, threads)
    pieces = (n_rows + step - 1) // step
    chosen = i32(head[0] + 4, n_experts)  # the experts that have pairs
    offsets = i32(head[0] + 4 * (1 + n_experts), n_experts + 1)
    order = i32(head[0] + 4 * (2 + 2 * n_experts), offsets[n_experts])
    expert_bytes = i64(args + 8 * (8 + MATRIX * matrices), matrices)
    scratch = head[5] + thread * 16 * WIDEST
    inputs, outputs = i64(scratch, WIDEST), i64(scratch + 8 * WIDEST, WIDEST)
    while True:
        item = take(desk)
        if item >= active * pieces:
            return
        first = (item % pieces) * step
        later = item + threads if item + threads < active * pieces else item
        expert, later_expert = chosen[item // pieces], chosen[later // pieces]
        if not still(desk):
            return
        begin, end = offsets[expert], offsets[expert + 1]
        if not still(desk):
            return
        kept = show(desk, item, 4 * matrices * (end - begin) * step)
        if kept < 0:
            return
        for m in range(matrices):
            w = i64(args + 8 * (8 + MATRIX * m), MATRIX)
            matrix, rows = args + 8 * (8 + MATRIX * m), min(step, w[2] - first)
            weights = w[0] + expert * expert_bytes[m] + first * w[1]
            n = m + 1 if m + 1 < matrices else 0  # the matrix that is read next, by this expert or the later one
            v, heir, start = i64(args + 8 * (8 + MATRIX * n), MATRIX), expert, first
            if n == 0:
                heir, start = later_expert, (later % pieces) * step
            following = v[0] + heir * expert_bytes[n] + start * v[1]
            strips, parts = _strips(matrix, rows, end - begin)
            for number in range(parts):
                at, some, place, stride, table = _part(matrix, weights, rows, strips, number, thread)
                leaves = i64(table, WIDEST + 1)
                column = begin
                while column < end:
                    width = leaf_width(leaves, end - column)
                    for c in range(width):
                        pair = order[column + c]
                        inputs[c] = w[3] + (pair // share) * w[4]
                        outputs[c] = w[5] + pair * w[6] + 4 * (first + at)
                        if kept != 0:
                            outputs[c] = kept + 4 * ((m * (end - begin) + column + c - begin) * rows + at)
                    fill(inputs, outputs, width)
                    if not still(desk):
                        return
                    after = following if column + width == end else place
                    call7(leaves[width], (place, stride, some, scratch, scratch + 8 * WIDEST, w[7], after))
                    if w[9] != 0:
                        for c in range(width):
                            _add_bias(w[9] + 4 * (expert * w[2] + first + at), outputs[c], some)
                    column += width
        if kept == 0:
            if matrices == 2:
                _activate_pairs(args, order, begin, end, first, rows)
            continue
        if matrices == 2:
            for j in range(end - begin):
                activate(head[7], kept + 4 * j * rows, kept + 4 * (end - begin + j) * rows, rows)
        if not commit(desk, kept):
            return
        for j in range(begin, end):
            w = i64(args + 8 * 8, MATRIX)
            copy(kept + 4 * (j - begin) * rows, w[5] + order[j] * w[6] + 4 * first, rows)
