"""The loops of the leaves for strips: products, a strip from its rows, a row from its strip. Arguments: see `leaves`."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from runtime.kernels.emitter import CACHE_LINE, Emitter, Value
from runtime.kernels.strips import StripEmitter
from runtime.quants.activations import ACTIVATIONS
from runtime.quants.strips import Strip, StripType

PREFETCH_AHEAD = 8192
"""Bytes between the block in work and the one asked for: docs/log.md has what other distances gave."""

KEPT = 2
"""Columns of the widest leaf that keeps what it has loaded; with more there is no room."""


def emit_products(e: Emitter, kind: StripType, columns: int, w: Value, stride: Value, rows: Value, a_ptrs: Value, out_ptrs: Value,
                n_blocks: Value, following: Value) -> None:  # fmt: skip
    assert isinstance(e, StripEmitter)
    weights, inputs, outputs = (e.pointer(address) for address in (w, a_ptrs, out_ptrs))
    packed = ACTIVATIONS[kind.activation]
    packed_bytes = packed.block_bytes * (kind.block_size // packed.block_size)
    block_bytes = e.lanes * kind.block_bytes
    end = e.builder.add(w, e.builder.mul(rows, stride))
    lines, registers = -(-block_bytes // CACHE_LINE), kind.block_size // 4

    def strip(s: Value, _: list[Value]) -> list[Value]:
        start = e.at(weights, e.builder.mul(e.builder.mul(s, stride), e.index(e.lanes)))
        xs = [e.load_pointer(inputs, column) for column in range(columns)]

        def block(b: Value, sums: list[Value]) -> list[Value]:
            at = e.at(start, e.builder.mul(b, e.index(block_bytes)))
            here = [e.at(x, e.builder.mul(b, e.index(packed_bytes))) for x in xs]
            ahead = e.ahead(at, PREFETCH_AHEAD, end, following)
            keep = kind.shared and e.registers == 32 and columns <= KEPT
            strip = Strip(e, at, ahead, lines, lines / registers, once=columns == 1, keep=keep)
            sums = kind.emit_strip(e, strip, here, sums)
            strip.prefetch()
            return sums

        totals = e.loop(n_blocks, [e.zero(e.floats(e.lanes))] * columns, block)
        for column, total in enumerate(totals):
            e.store(total, e.load_pointer(outputs, column), e.builder.mul(s, e.index(4 * e.lanes)))
        return []

    e.loop(e.builder.udiv(rows, e.index(e.lanes)), [], strip)


def emit_interleave(e: Emitter, kind: StripType, w: Value, stride: Value, out: Value, n_blocks: Value) -> None:
    rows = [e.at(e.pointer(w), e.builder.mul(stride, e.index(row))) for row in range(e.lanes)]
    scratch = [e.scratch(kind.block_bytes) for _ in rows]
    target = e.pointer(out)

    def block(b: Value, _: list[Value]) -> list[Value]:
        start = e.builder.mul(b, e.index(kind.block_bytes))
        blocks = [kind.emit_arranged(e, e.at(row, start), spare) for row, spare in zip(rows, scratch, strict=True)]

        def move(offset: Value, size: int) -> None:
            strip_offset = e.builder.mul(e.builder.add(start, offset), e.index(e.lanes))
            for number, source in enumerate(blocks):
                e.store(e.load(source, offset, e.integer(size)), e.at(target, strip_offset), size * number)

        _elements(e, kind, move)
        return []

    e.loop(n_blocks, [], block)


def emit_row(e: Emitter, kind: StripType, strip: Value, row: Value, out: Value, n_blocks: Value) -> None:
    source, target = e.pointer(strip), e.pointer(out)

    def block(b: Value, _: list[Value]) -> list[Value]:
        start = e.builder.mul(b, e.index(kind.block_bytes))
        to = e.at(target, start)

        def move(offset: Value, size: int) -> None:
            strip_offset = e.builder.mul(e.builder.add(start, offset), e.index(e.lanes))
            place = e.builder.add(strip_offset, e.builder.mul(row, e.index(size)))
            e.store(e.load(source, place, e.integer(size)), to, offset)

        _elements(e, kind, move)
        kind.emit_restored(e, to)
        return []

    e.loop(n_blocks, [], block)


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
