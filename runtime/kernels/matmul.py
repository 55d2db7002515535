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
from runtime.kernels.basics import CACHE_LINE
from runtime.kernels.desk import commit, show, still, take
from runtime.kernels.driver import driver, inline
from runtime.kernels.memory import call5, call7, f32, i32, i64, prefetch
from runtime.kernels.tile_leaves import GROUP, MOST

WIDEST = 8  # columns of the widest leaf without tiles
PIECES = 4  # pieces a thread should find in a product: fewer stream better, more even out threads of different speed
LINEAR, EXPERTS = 5, 8  # int64 fields in the arguments of the two drivers before those of their matrices
MATRIX = 17  # int64 fields of one matrix in the arguments, in this order:
# weights, bytes a row, rows, activations, bytes an activation row, outputs, bytes an output row, blocks a row, leaves, bias,
# leaf that unpacks (or 0), leaves for what it makes, where it makes that, bytes of a row there, rows that it makes at a time, and
# what they are a multiple of, columns for which that pays
# `leaves`: MOST + 1 int64; [c] is the address of the leaf for c columns (see `fill`), 0 where there is none, and [0] the most
# columns that there is one for. `bias`: f32 or 0.


@inline
def leaf_width(leaves: Any, columns: int) -> int:
    """The most columns, at most `columns`, that a leaf takes, or one of more columns: see `fill`."""
    width = int(min(columns, leaves[0]))
    while leaves[width] == 0:
        width -= 1
    return width


@inline
def fill(inputs: Any, outputs: Any, width: int) -> None:
    """Complete the pointers of `width` columns: three and seven, where a table has leaves for them, are multiplied by those for
    four and eight, in which the last column stands twice. That takes less time than a leaf more. More than WIDEST are made groups
    in the same way, as the leaf with tiles wants them. Where there is one leaf alone, that is so with fewer too."""
    end = (width + GROUP - 1) // GROUP * GROUP if width > WIDEST else WIDEST
    for c in range(width, end):
        inputs[c], outputs[c] = inputs[width - 1], outputs[width - 1]
    if width > WIDEST:
        for c in range(end, MOST, GROUP):
            inputs[c] = 0


@inline
def ask(address: int, nbytes: int) -> None:
    """For the cache lines of so many bytes."""
    for place in range(0, nbytes, CACHE_LINE):
        prefetch(address + place)


@inline
def copy(source: int, target: int, count: int) -> None:
    """`count` float32 from one address to another."""
    x, y = f32(source, count), f32(target, count)
    for i in range(count):
        y[i] = x[i]


@inline
def add(source: int, target: int, count: int) -> None:
    """Add `count` float32 at one address to those at another. Arrays of their own, for an index that is a sum might be negative
    for all that numba knows, and LLVM takes no vectors then."""
    x, y = f32(source, count), f32(target, count)
    for i in range(count):
        y[i] += x[i]


@inline
def _matrix_of(args: int, matrices: int, piece: int, step: int) -> tuple[int, int]:
    """Of `linear`: the matrix that a piece belongs to, and the first of its rows there."""
    m = 0
    while m < matrices - 1:
        in_matrix = (i64(args + 8 * (LINEAR + MATRIX * m), MATRIX)[2] + step - 1) // step
        if piece < in_matrix:
            break
        piece -= in_matrix
        m += 1
    return m, piece * step


@inline
def _after_piece(args: int, m: int, matrices: int, first: int, step: int) -> int:
    """Of `linear`: where the weights lie `step` rows after row `first` of matrix m, or those of the next matrix."""
    w = i64(args + 8 * (LINEAR + MATRIX * m), MATRIX)
    if first + step < w[2]:
        return int(w[0] + (first + step) * w[1])
    if m + 1 < matrices:
        return int(i64(args + 8 * (LINEAR + MATRIX * (m + 1)), MATRIX)[0])
    return int(w[0] + w[2] * w[1])


@inline
def _parts(matrix: int, rows: int, columns: int) -> tuple[int, int]:
    """Of a piece of so many rows, those that are unpacked for so many columns, and the parts: of these, and of what is left."""
    w = i64(matrix, MATRIX)
    unpacked = rows // w[15] * w[15] if w[10] != 0 and columns >= w[16] else 0
    parts = (unpacked + w[14] - 1) // w[14] if unpacked > 0 else 0
    return unpacked, parts + 1 if unpacked < rows else parts


@inline
def _part(matrix: int, weights: int, rows: int, unpacked: int, number: int, thread: int) -> tuple[int, int, int, int, int]:
    """Part `number` of a piece, some rows, which are unpacked now, or all that are not: the first row and how many, where they
    lie, their stride, and their leaves."""
    w = i64(matrix, MATRIX)
    at = number * w[14]
    if at >= unpacked:
        return unpacked, rows - unpacked, weights + unpacked * w[1], w[1], w[8]
    place, some = w[12] + thread * w[13] * w[14], min(w[14], unpacked - at)
    call5(w[10], (weights + at * w[1], w[1], some, place, w[7]))
    return at, some, place, w[13], w[11]


@inline
def _row_of(order: int, column: int) -> int:
    """The row of the output that a column belongs to: what stands in `order`, int32 at an address, or that of the same number."""
    return int(i32(order, column + 1)[column]) if order != 0 else column


@inline
def _point(matrix: int, order: int, share: int, column: int, width: int, to: int, kept: int, rows: int, pointers: int) -> None:
    """The addresses of `width` columns from `column` on for a leaf, whose rows are from `to` on in those of the output. Where
    sums are kept aside, a column has `rows` floats there, the leaf's first at `kept`."""
    w = i64(matrix, MATRIX)
    inputs, outputs = i64(pointers, MOST), i64(pointers + 8 * MOST, MOST)
    for c in range(width):
        row = _row_of(order, column + c)
        inputs[c] = w[3] + (row // share) * w[4]
        outputs[c] = w[5] + row * w[6] + 4 * to
        if kept != 0:
            outputs[c] = kept + 4 * (column + c) * rows
    fill(inputs, outputs, width)


@inline
def _multiply(matrix: int, weights: int, bias: int, first: int, rows: int, order: int, share: int, count: int,
              kept: int, following: int, pointers: int, desk: int, thread: int) -> bool:
    """A piece of a product: rows [first, first + rows) of a matrix, which lie at `weights`, times the activation rows of `count`
    columns; a row serves `share` rows of the output. Results are kept aside at `kept`, if it is not 0. `bias`: of these rows.
    What lies at `following` is read next. False: the row of the Program is over, and the caller has to leave it."""
    length = i64(matrix, MATRIX)[7]
    outputs = i64(pointers + 8 * MOST, MOST)
    unpacked, parts = _parts(matrix, rows, count)
    for number in range(parts):
        at, some, place, stride, table = _part(matrix, weights, rows, unpacked, number, thread)
        leaves = i64(table, MOST + 1)
        column = 0
        while column < count:
            width = leaf_width(leaves, count - column)
            _point(matrix, order, share, column, width, first + at, kept + 4 * at if kept != 0 else 0, rows, pointers)
            if not still(desk):  # then `order` may have been another row's
                return False
            after = following if column + width == count else place
            call7(leaves[width], (place, stride, some, pointers, pointers + 8 * MOST, length, after))
            if bias != 0:
                for c in range(width):
                    add(bias + 4 * at, outputs[c], some)
            column += width
    return True


@inline
def _settle(matrix: int, order: int, count: int, first: int, rows: int, kept: int) -> None:
    """What was kept aside of `count` columns goes where it belongs, from row `first` of the matrix on."""
    w = i64(matrix, MATRIX)
    for column in range(count):
        copy(kept + 4 * column * rows, w[5] + _row_of(order, column) * w[6] + 4 * first, rows)


@driver
def linear(args: int, desk: int, thread: int, threads: int) -> None:
    """out[i] = W x[i] + bias for every row i of x, for several W at once.

    Arguments: address of the row count, pieces in all, rows a piece, scratch (2 * MOST int64 a thread), matrices, then
    MATRIX fields each.
    """
    head = i64(args, LINEAR)
    count, pieces, step, matrices = i64(head[0], 1)[0], head[1], head[2], head[4]
    pointers = head[3] + thread * 16 * MOST
    while True:
        piece = take(desk)
        if piece >= pieces:
            return
        kept = show(desk, piece, 4 * count * step)
        if kept < 0:
            return
        m, first = _matrix_of(args, matrices, piece, step)
        matrix = args + 8 * (LINEAR + MATRIX * m)
        w = i64(matrix, MATRIX)
        rows, bias = min(step, w[2] - first), w[9] + 4 * first if w[9] != 0 else 0
        following = _after_piece(args, m, matrices, first, threads * step)
        if not _multiply(matrix, w[0] + first * w[1], bias, first, rows, 0, 1, count, kept, following, pointers, desk, thread):
            return
        if not commit(desk, kept):
            return
        if kept != 0:
            _settle(matrix, 0, count, first, rows, kept)


@inline
def piece_rows(rows: int, least: int, most: int, active: int, threads: int) -> int:
    """Rows of a piece, a multiple of `least`: few experts are divided finely, so that every thread has some of them."""
    wanted = active * rows // (threads * PIECES)
    return int(min(most, max(1, wanted // least) * least))


@inline
def _read_next(args: int, m: int, expert: int, first: int, later_expert: int, later_first: int) -> int:
    """Of `experts`: the weights that are read after those of matrix m, of the next matrix by the same expert, or of the first by
    the expert and from the row on that this thread has later."""
    matrices = i64(args, EXPERTS)[6]
    n = m + 1
    if n == matrices:
        n, expert, first = 0, later_expert, later_first
    w, expert_bytes = i64(args + 8 * (EXPERTS + MATRIX * n), MATRIX), i64(args + 8 * (EXPERTS + MATRIX * matrices), matrices)
    return int(w[0] + expert * expert_bytes[n] + first * w[1])


@inline
def _multiply_expert(args: int, expert: int, first: int, rows: int, order: int, count: int, kept: int,
                     later_expert: int, later_first: int, pointers: int, desk: int, thread: int) -> bool:
    """A piece of `experts`: some rows of every matrix of an expert, for the `count` pairs in `order`. Result: see `_multiply`."""
    share, matrices = i64(args, EXPERTS)[2], i64(args, EXPERTS)[6]
    expert_bytes = i64(args + 8 * (EXPERTS + MATRIX * matrices), matrices)
    for m in range(matrices):
        matrix = args + 8 * (EXPERTS + MATRIX * m)
        w = i64(matrix, MATRIX)
        weights, bias = w[0] + expert * expert_bytes[m] + first * w[1], w[9] + 4 * (expert * w[2] + first) if w[9] != 0 else 0
        aside = kept + 4 * m * count * rows if kept != 0 else 0
        following = _read_next(args, m, expert, first, later_expert, later_first)
        if not _multiply(matrix, weights, bias, first, rows, order, share, count, aside, following, pointers, desk, thread):
            return False
    return True


@inline
def _activate_pairs(args: int, order: int, count: int, first: int, rows: int, kept: int) -> None:
    """Of `experts`: activation(gate) * up of some rows of the pairs in `order`, in place, or where they are kept aside."""
    gate, up = i64(args + 8 * EXPERTS, MATRIX), i64(args + 8 * (EXPERTS + MATRIX), MATRIX)
    for j in range(count):
        to = _row_of(order, j) * gate[6] + 4 * first
        left, right = gate[5] + to, up[5] + to
        if kept != 0:
            left, right = kept + 4 * j * rows, kept + 4 * (count + j) * rows
        activate(i64(args, EXPERTS)[7], left, right, rows)


@driver
def experts(args: int, desk: int, thread: int, threads: int) -> None:
    """out[p] = W[expert of p] x[p // share] for every (token, expert) pair p, over the plan that `router.plan` made.

    With two matrices (gate, up) the first output becomes activation(gate) * up. A bias has the rows of all experts.
    Arguments: plan, experts, share, most rows a piece, least rows (the most are a multiple of it, or all), scratch, matrices,
    activation, then MATRIX fields each, and after them the bytes of one expert in each matrix.
    """
    head = i64(args, EXPERTS)
    n_experts, matrices, n_rows = head[1], head[6], i64(args + 8 * EXPERTS, MATRIX)[2]
    active = i32(head[0], 1)[0]
    step = piece_rows(n_rows, head[4], head[3], active, threads)
    pieces = (n_rows + step - 1) // step
    chosen = i32(head[0] + 4, n_experts)  # the experts that have pairs
    offsets = i32(head[0] + 4 * (1 + n_experts), n_experts + 1)
    pairs = head[0] + 4 * (2 + 2 * n_experts)  # of one expert after the other, as `offsets` says
    pointers = head[5] + thread * 16 * MOST
    while True:
        item = take(desk)
        if item >= active * pieces:
            return
        later = item + threads if item + threads < active * pieces else item
        first, later_first = (item % pieces) * step, (later % pieces) * step
        expert, later_expert = chosen[item // pieces], chosen[later // pieces]
        if not still(desk):
            return
        order, count, rows = pairs + 4 * offsets[expert], offsets[expert + 1] - offsets[expert], min(step, n_rows - first)
        if not still(desk):
            return
        kept = show(desk, item, 4 * matrices * count * step)
        if kept < 0:
            return
        if not _multiply_expert(args, expert, first, rows, order, count, kept, later_expert, later_first, pointers, desk, thread):
            return
        if matrices == 2:
            _activate_pairs(args, order, count, first, rows, kept)
        if not commit(desk, kept):
            return
        if kept != 0:
            _settle(args + 8 * EXPERTS, order, count, first, rows, kept)
