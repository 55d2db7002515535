"""The loops of the leaf that multiplies strips by many columns in tiles (see `amx`). Arguments: see `leaves`.

Of a few blocks at a time the inputs of all columns are gathered, since a tile's lines lie evenly apart. Then, strip after strip,
each block is made tiles of once and multiplied by 16 columns after the other; running sums stay in the core's first cache.
"""

from __future__ import annotations

import dataclasses

from runtime.kernels.amx import LINE, TILE_BYTES, TILE_ROWS, VALUES_BYTES, Amx, Folded, Multiplied
from runtime.kernels.basics import CACHE_LINE, Value
from runtime.quants.activations import Q8K
from runtime.quants.strips import Strip, Woven

GROUP = TILE_ROWS
"""Columns of a tile."""
MOST = 4 * GROUP
"""Columns that the leaf takes at most. Of fewer there are pointers for whole groups, and 0 where each further one would begin."""
GATHERED = 4
"""Blocks whose inputs are gathered at a time: of 32 columns they fit the first cache."""
_LINE_BYTES = GATHERED * Q8K.block_bytes  # a column's
_INPUTS, _WEIGHTS = 4, 6  # the first of two tiles each; 0 to 3 hold sums


def pays(kind: Woven) -> bool:
    """Whether tiles multiply weights of that type: those that have a float for each 32 values would leave the tiles as often."""
    return kind.activation == Q8K.name


def emit_products(e: Amx, kind: Woven, w: Value, stride: Value, rows: Value, a_ptrs: Value, out_ptrs: Value, n_blocks: Value,
                  following: Value) -> None:  # fmt: skip
    places = (e.scratch(size, CACHE_LINE) for size in (MOST * _LINE_BYTES, 2 * VALUES_BYTES, 4 * TILE_BYTES, MOST * LINE))
    end = e.builder.add(w, e.builder.mul(rows, stride))
    work = _Tiles(e, kind, e.pointer(w), stride, end, e.pointer(a_ptrs), e.pointer(out_ptrs), following, *places)
    strips, groups = e.builder.udiv(rows, e.index(e.lanes)), work.count_groups()

    def some(i: Value, _: list[Value]) -> list[Value]:
        block = e.builder.mul(i, e.index(GATHERED))
        left = e.builder.sub(n_blocks, block)
        count = e.builder.select(e.builder.icmp_signed("<", left, e.index(GATHERED)), left, e.index(GATHERED))
        work.gather(groups, block, count)
        e.loop(strips, [], lambda s, _: work.multiply(groups, s, block, count))
        return []

    e.configure_tiles()
    e.loop(e.builder.udiv(e.builder.add(n_blocks, e.index(GATHERED - 1)), e.index(GATHERED)), [], some)
    e.release_tiles()


@dataclasses.dataclass(frozen=True)
class _Tiles:
    e: Amx
    kind: Woven
    weights: Value
    stride: Value
    end: Value
    a_ptrs: Value
    out_ptrs: Value
    following: Value
    inputs: Value  # MOST lines of GATHERED blocks
    tiles: Value  # of a block of weights: lower bytes, upper bytes
    products: Value  # of two groups: i32, lower and upper
    sums: Value  # f32, a line for each column

    def count_groups(self) -> Value:
        """How many 16 columns there are."""
        e, count = self.e, self.e.index(1)
        for first in range(GROUP, MOST, GROUP):
            there = e.builder.icmp_unsigned("!=", e.load(self.a_ptrs, 8 * first, e.I64), e.index(0))
            count = e.builder.add(count, e.builder.zext(there, e.I64))
        return count

    def gather(self, groups: Value, block: Value, count: Value) -> None:
        """Put the inputs of `count` blocks from `block` on, of all columns, one after the other."""
        e = self.e
        size = e.index(Q8K.block_bytes)

        def column(c: Value, _: list[Value]) -> list[Value]:
            there = e.at(self._pointer(self.a_ptrs, c), e.builder.mul(block, size))
            here = e.at(self.inputs, e.builder.mul(c, e.index(_LINE_BYTES)))

            def one(b: Value, _: list[Value]) -> list[Value]:
                at = e.builder.mul(b, size)
                for line in range(0, Q8K.block_bytes, CACHE_LINE):
                    e.store(e.load(e.at(there, at), line, e.bytes(CACHE_LINE)), e.at(here, at), line)
                return []

            e.loop(count, [], one)
            return []

        e.loop(e.builder.mul(groups, e.index(GROUP)), [], column)

    def multiply(self, groups: Value, strip: Value, block: Value, count: Value) -> list[Value]:
        """Add the products of `count` blocks of a strip to the outputs, or begin these."""
        e = self.e
        size = e.builder.mul(self.stride, e.index(e.lanes))
        start = e.at(self.weights, e.builder.mul(strip, size))
        columns, row = e.builder.mul(groups, e.index(GROUP)), e.builder.mul(strip, e.index(LINE))
        begins = e.builder.icmp_unsigned("==", block, e.index(0))
        nothing = e.zero(e.floats(e.lanes))

        def begin(c: Value, _: list[Value]) -> list[Value]:
            so_far = e.load(self._pointer(self.out_ptrs, c), row, e.floats(e.lanes))
            e.store(e.builder.select(begins, nothing, so_far), self.sums, e.builder.mul(c, e.index(LINE)))
            return []

        def one(b: Value, _: list[Value]) -> list[Value]:
            self._block(groups, start, size, e.builder.add(block, b), b)
            return []

        def end(c: Value, _: list[Value]) -> list[Value]:
            e.store(e.load(self.sums, e.builder.mul(c, e.index(LINE)), nothing.type), self._pointer(self.out_ptrs, c), row)
            return []

        e.loop(columns, [], begin)
        e.loop(count, [], one)
        e.loop(columns, [], end)
        return []

    def _block(self, groups: Value, start: Value, size: Value, block: Value, gathered: Value) -> None:
        """One block of the strip at `start`, of `size` bytes, whose inputs are number `gathered`."""
        e = self.e
        strip_bytes = e.lanes * self.kind.block_bytes
        at = e.at(start, e.builder.mul(block, e.index(strip_bytes)))
        upper = self._fold(at, e.ahead(e.at(at, size), 0, self.end, self.following), -(-strip_bytes // CACHE_LINE))
        inputs = e.at(self.inputs, e.builder.mul(gathered, e.index(Q8K.block_bytes)))
        for first, together, times in e.walked((2, 1), groups):

            def some(i: Value, _: list[Value], first: Value = first, together: int = together) -> list[Value]:
                group = e.builder.add(first, e.builder.mul(i, e.index(together)))
                here = e.at(inputs, e.builder.mul(group, e.index(GROUP * _LINE_BYTES)))
                self._products(here, together, signed=upper == 8)
                for k in range(together):
                    place = e.at(here, k * GROUP * _LINE_BYTES)
                    sums = e.at(self.sums, e.builder.mul(e.builder.add(group, e.index(k)), e.index(TILE_BYTES)))
                    self._finish(at, place, sums, k, upper)
                return []

            e.loop(times, [], some)

    def _fold(self, at: Value, ahead: Value, lines: int) -> int:
        """Make tiles of the block at `at`; how much upper bytes count."""
        folded = Folded(self.e.builder, self.tiles)
        ways = {"once": False, "spread": True, "pinned": False, "long": False, "keep": False}
        strip = Strip(folded, at, ahead, 0 if self.kind.near else lines, registers=self.kind.block_size // 4, **ways)
        self.kind.emit_strip(folded, strip, [at], [folded.zero(folded.floats(folded.lanes))])
        strip.prefetch()
        return folded.upper

    def _products(self, inputs: Value, together: int, *, signed: bool) -> None:
        """The sums of products of a block and so many groups of columns."""
        e = self.e
        for tile in range(2 * together):
            e.zero_tile(tile)
        for quarter in range(4):
            for part in (0, 1):
                e.load_tile(_WEIGHTS + part, e.at(self.tiles, VALUES_BYTES * part + TILE_BYTES * quarter), LINE)
            for k in range(together):
                e.load_tile(_INPUTS + k, e.at(inputs, k * GROUP * _LINE_BYTES + LINE * quarter), _LINE_BYTES)
                e.multiply_tiles(2 * k, _INPUTS + k, _WEIGHTS, signed=False)
                e.multiply_tiles(2 * k + 1, _INPUTS + k, _WEIGHTS + 1, signed=signed)
        for tile in range(2 * together):
            e.store_tile(tile, e.at(self.products, TILE_BYTES * tile))

    def _finish(self, at: Value, inputs: Value, sums: Value, number: int, upper: int) -> None:
        """Add a block's products with 16 columns, those of group `number`, to their running sums."""
        e = self.e
        kind, lines = e.vector(e.I32, e.lanes), range(0, TILE_BYTES, LINE)
        low, high = (e.at(self.products, TILE_BYTES * (2 * number + part)) for part in (0, 1))
        products = [e.add(e.load(low, line, kind), e.shl(e.load(high, line, kind), upper)) for line in lines]
        finisher = Multiplied(e.builder, products)
        strip = Strip(finisher, at, at, 0, registers=1, once=False, spread=False, pinned=False, long=False, keep=True)
        xs = [e.at(inputs, column * _LINE_BYTES) for column in range(GROUP)]
        so_far = [e.load(sums, line, e.floats(e.lanes)) for line in lines]
        for line, total in zip(lines, self.kind.emit_strip(finisher, strip, xs, so_far), strict=True):
            e.store(total, sums, line)

    def _pointer(self, table: Value, index: Value) -> Value:
        return self.e.pointer(self.e.load(table, self.e.builder.mul(index, self.e.index(8)), self.e.I64))
