"""The loops of the leaves for strips: products, a strip from its rows, as they are or unpacked, a row from its strip. Arguments:
see `leaves`."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from runtime.kernels import isa, tile_leaves
from runtime.kernels.amx import Amx
from runtime.kernels.basics import CACHE_LINE, Value
from runtime.kernels.emitter import Emitter
from runtime.kernels.strips import StripEmitter
from runtime.kernels.tiers import activation_of
from runtime.kernels.vbmi import Avx512Vbmi
from runtime.quants.activations import ACTIVATIONS
from runtime.quants.opened import Opened
from runtime.quants.signed_block import SignedBlockType
from runtime.quants.strips import Strip, StripType, Woven
from runtime.quants.unpacked import Unpacked, emit_unpack, emit_unpack_lanes

PREFETCH_AHEAD = {16: 12288, 32: 8192}
"""Bytes between the block in work and the one asked for, by the number of registers: docs/log.md has what others gave."""
AHEAD_TOGETHER = 4096
"""The same where several strips are read side by side."""

KEPT = 2
"""Columns of the widest leaf that keeps what it has loaded; with more there is no room."""


def emit_products(e: Emitter, kind: Woven, columns: int, w: Value, stride: Value, rows: Value, a_ptrs: Value, out_ptrs: Value,
                n_blocks: Value, following: Value) -> None:  # fmt: skip
    assert isinstance(e, StripEmitter)
    if columns == tile_leaves.MOST:
        assert isinstance(e, Amx)
        tile_leaves.emit_products(e, kind, w, stride, rows, a_ptrs, out_ptrs, n_blocks, following)
        return
    together = kind.strips_together(columns, e)
    strips = e.builder.udiv(rows, e.index(e.lanes))
    groups = e.builder.udiv(strips, e.index(together))
    products = _Products(e, kind, columns, e.builder.add(w, e.builder.mul(rows, stride)), n_blocks, following)
    places = e.pointer(w), stride, e.pointer(a_ptrs), e.pointer(out_ptrs)
    e.loop(groups, [], products.strips(*places, e.index(0), together))
    if together > 1:
        done = e.builder.mul(groups, e.index(together))
        e.loop(e.builder.sub(strips, done), [], products.strips(*places, done, 1))


class _Products:
    """The loops of products over strips and their blocks."""

    def __init__(self, e: StripEmitter, kind: Woven, columns: int, end: Value, n_blocks: Value, following: Value) -> None:
        packed = ACTIVATIONS[activation_of(kind, e.tier)]
        self.e, self.kind, self.columns, self.following, self.end = e, kind, columns, following, end
        self.input_bytes = kind.strip_blocks * packed.block_bytes * (kind.block_size // packed.block_size)
        self.strip_bytes = e.lanes * kind.strip_blocks * kind.block_bytes
        self.steps = e.walked(kind.strip_steps, e.builder.udiv(n_blocks, e.index(kind.strip_blocks)))

    def strips(
        self, weights: Value, stride: Value, inputs: Value, outputs: Value, first: Value, together: int
    ) -> Callable[[Value, list[Value]], list[Value]]:
        """The body of a loop over `together` strips at a time, from strip `first` on."""
        e = self.e

        def body(i: Value, _: list[Value]) -> list[Value]:
            number = e.builder.add(first, e.builder.mul(i, e.index(together)))
            size = e.builder.mul(stride, e.index(e.lanes))
            starts = [e.at(weights, e.builder.mul(e.builder.add(number, e.index(k)), size)) for k in range(together)]
            xs = [e.load_pointer(inputs, column) for column in range(self.columns)]
            totals = [e.zero(e.floats(e.lanes))] * (self.columns * together)
            for step in self.steps:
                totals = e.loop(step[2], totals, self._blocks(starts, xs, size, step))
            for place, total in enumerate(totals):
                k, column = divmod(place, self.columns)
                row = e.builder.mul(e.builder.add(number, e.index(k)), e.index(4 * e.lanes))
                e.store(total, e.load_pointer(outputs, column), row)
            return []

        return body

    def _blocks(
        self, starts: list[Value], xs: list[Value], size: Value, step: tuple[Value, int, Value]
    ) -> Callable[[Value, list[Value]], list[Value]]:
        """The body of a loop over blocks of the strips at `starts`, `size` bytes each."""
        e, (first, count, _) = self.e, step

        def body(b: Value, sums: list[Value]) -> list[Value]:
            block = e.builder.add(first, e.builder.mul(b, e.index(count)))
            offset = e.builder.mul(block, e.index(self.strip_bytes))
            here = [e.at(x, e.builder.mul(block, e.index(self.input_bytes))) for x in xs]
            strips = [self._strip(start, offset, count, len(starts), size) for start in starts]
            results = self.kind.emit_strips(e, strips, here, sums)
            for strip in strips:
                strip.prefetch()
            return results

        return body

    def _strip(self, start: Value, offset: Value, count: int, together: int, size: Value) -> Strip:
        e, columns = self.e, self.columns
        at, end, following = e.at(start, offset), self.end, self.following
        if together > 1:  # what comes after this strip is not the next one, which others of this group are reading
            end = e.builder.ptrtoint(e.at(start, size), e.I64)
            after = e.ahead(e.at(start, e.builder.mul(size, e.index(together))), 0, self.end, following)
            following = e.builder.ptrtoint(after, e.I64)
        distance = AHEAD_TOGETHER if together > 1 else PREFETCH_AHEAD[e.registers]
        ahead = e.ahead(at, distance, end, following)
        lines = 0 if self.kind.near else -(-count * self.strip_bytes // CACHE_LINE)
        registers = max(1, self.kind.block_size // 4)
        alone = columns == 1
        keep = self.kind.shared and e.registers == 32 and columns <= KEPT
        once = alone and self.kind.streamed and isa.reads_past_caches()
        pinned, long = alone and self.kind.pinned(e), self.kind.long and not alone
        return Strip(
            e, at, ahead, lines, registers=registers, once=once, spread=alone, pinned=pinned, long=long, keep=keep, count=count
        )


def emit_interleave(e: Emitter, kind: StripType, w: Value, stride: Value, out: Value, n_blocks: Value) -> None:
    rows = [e.at(e.pointer(w), e.builder.mul(stride, e.index(row))) for row in range(e.lanes)]
    size = kind.strip_blocks * kind.block_bytes
    scratch = [e.scratch(size) for _ in rows]
    target = e.pointer(out)

    def block(b: Value, _: list[Value]) -> list[Value]:
        start = e.builder.mul(b, e.index(size))
        blocks = [kind.emit_arranged(e, e.at(row, start), spare) for row, spare in zip(rows, scratch, strict=True)]

        def move(offset: Value, width: int) -> None:
            strip_offset = e.builder.mul(e.builder.add(start, offset), e.index(e.lanes))
            for number, source in enumerate(blocks):
                e.store(e.load(source, offset, e.integer(width)), e.at(target, strip_offset), width * number)

        _elements(e, kind, move)
        return []

    e.loop(e.builder.udiv(n_blocks, e.index(kind.strip_blocks)), [], block)


def emit_opened(e: Emitter, kind: Opened, w: Value, stride: Value, rows: Value, out: Value, n_blocks: Value) -> None:
    """Strips of a type -> opened strips."""
    assert isinstance(e, StripEmitter)
    packed, size = e.lanes * kind.kind.block_bytes, e.lanes * kind.block_bytes

    def block(source: Value, to: Value, b: Value) -> None:
        kind.emit_open(e, e.at(source, e.builder.mul(b, e.index(packed))), e.at(to, e.builder.mul(b, e.index(size))))

    _each_block(e, w, stride, rows, out, n_blocks, size, block)


def _each_block(e: Emitter, w: Value, stride: Value, rows: Value, out: Value, n_blocks: Value, size: int,
                block: Callable[[Value, Value, Value], None]) -> None:  # fmt: skip
    """`block(first row of a strip, where its blocks of `size` bytes go, number of the block)` for every block of whole strips."""
    source, target = e.pointer(w), e.pointer(out)
    from_bytes, to_bytes = e.builder.mul(stride, e.index(e.lanes)), e.builder.mul(n_blocks, e.index(size))

    def strip(s: Value, _: list[Value]) -> list[Value]:
        start, to = e.at(source, e.builder.mul(s, from_bytes)), e.at(target, e.builder.mul(s, to_bytes))

        def one(b: Value, _: list[Value]) -> list[Value]:
            block(start, to, b)
            return []

        e.loop(n_blocks, [], one)
        return []

    e.loop(e.builder.udiv(rows, e.index(e.lanes)), [], strip)


def emit_unpacked(e: Emitter, kind: SignedBlockType, form: Unpacked, w: Value, stride: Value, rows: Value, out: Value,
                  n_blocks: Value) -> None:  # fmt: skip
    """Rows of a type -> strips of unpacked blocks. The rows after them, which are probably next, are asked for meanwhile."""
    size = e.lanes * form.block_bytes
    strip_bytes = e.builder.mul(stride, e.index(e.lanes))

    def block(source: Value, strip: Value, b: Value) -> None:
        start = e.at(source, e.builder.mul(b, e.index(kind.block_bytes)))
        to = e.at(strip, e.builder.mul(b, e.index(size)))
        ahead = e.at(e.at(source, strip_bytes), e.builder.mul(b, e.index(e.lanes * kind.block_bytes)))
        for line in range(-(-e.lanes * kind.block_bytes // CACHE_LINE)):
            e.prefetch(ahead, line)
        if isinstance(e, Avx512Vbmi):
            blocks = [e.at(start, e.builder.mul(stride, e.index(r))) for r in range(e.lanes)]
            emit_unpack_lanes(e, kind, form, blocks, to)
        else:
            _emit_unpack_rows(e, kind, form, start, stride, to)

    _each_block(e, w, stride, rows, out, n_blocks, size, block)


def _emit_unpack_rows(e: Emitter, kind: SignedBlockType, form: Unpacked, start: Value, stride: Value, to: Value) -> None:
    """A block of each row, one row after the other."""
    size = form.block_bytes
    scratch = e.scratch(e.lanes * size)

    def row(r: Value, _: list[Value]) -> list[Value]:
        emit_unpack(e, kind, form, e.at(start, e.builder.mul(r, stride)), e.at(scratch, e.builder.mul(r, e.index(size))))
        return []

    e.loop(e.lanes, [], row)
    _weave(e, scratch, to, size)


def _weave(e: Emitter, rows: Value, out: Value, size: int) -> None:
    """`lanes` rows of `size` bytes, a multiple of 4, interleaved by four bytes."""
    span = 4 * e.lanes  # bytes of a row in a register
    register = e.vector(e.I32, e.lanes)

    def square(k: Value, _: list[Value]) -> list[Value]:
        here, to = e.at(rows, e.builder.mul(k, e.index(span))), e.at(out, e.builder.mul(k, e.index(span * e.lanes)))
        for number, column in enumerate(e.transposed([e.load(here, size * row, register) for row in range(e.lanes)])):
            e.store(column, to, span * number)
        return []

    e.loop(size // span, [], square)
    for offset in range(size // span * span, size, 4):
        for row in range(e.lanes):
            e.store(e.load(rows, size * row + offset, e.I32), out, e.lanes * offset + 4 * row)


def emit_row(e: Emitter, kind: StripType, strip: Value, row: Value, out: Value, n_blocks: Value) -> None:
    source, target = e.pointer(strip), e.pointer(out)

    def block(b: Value, _: list[Value]) -> list[Value]:
        start = e.builder.mul(b, e.index(kind.strip_blocks * kind.block_bytes))
        to = e.at(target, start)

        def move(offset: Value, size: int) -> None:
            strip_offset = e.builder.mul(e.builder.add(start, offset), e.index(e.lanes))
            place = e.builder.add(strip_offset, e.builder.mul(row, e.index(size)))
            e.store(e.load(source, place, e.integer(size)), to, offset)

        _elements(e, kind, move)
        kind.emit_restored(e, to)
        return []

    e.loop(e.builder.udiv(n_blocks, e.index(kind.strip_blocks)), [], block)


def _elements(e: Emitter, kind: StripType, move: Callable[[Value, int], None]) -> None:
    """`move(offset in a block, size)` for every element of a block."""
    first = 0
    for size, run in itertools.groupby(kind.elements):
        count = len(list(run))

        def element(j: Value, _: list[Value], first: int = first, size: int = size) -> list[Value]:
            move(e.builder.add(e.index(first), e.builder.mul(j, e.index(size))), size)
            return []

        e.loop(count, [], element)
        first += count * size
