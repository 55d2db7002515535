"""AMX: products of tiles, 16 rows of 64 bytes each, on the CPUs that have them (Sapphire Rapids and its successors).

A tile of weights is what a strip holds of 64 consecutive values of 16 rows: a line of the tile is a register, four values of
each row. So weights become tiles by taking their quants apart, one register after the other, as other leaves do. Scales go into
the weights: a product of quant and scale has up to 16 bits, which are a byte in each of two tiles. Then a block's sum of whole
numbers comes out of the tiles alone. It is the one that other leaves add up, and what becomes of it is the type's own code: so
results have the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llvmlite import ir

from runtime.kernels.basics import I8, I64, Builder, Value
from runtime.kernels.strips import Wait
from runtime.kernels.vbmi import Avx512Bf16

TILE_ROWS, LINE = 16, 64  # lines of a tile, and bytes of one
TILE_BYTES = TILE_ROWS * LINE
VALUES_BYTES = 4 * TILE_BYTES  # tiles of a block of 256 values of 16 rows
_NARROW = 255 // 7  # of quants up to this the product with three bits of a scale is a byte


class Amx(Avx512Bf16):
    """Also tiles. Their numbers are 0 to 7; configured they are all of the largest size, and empty again once released."""

    tier = "amx"

    def configure_tiles(self) -> None:
        palette, lines, sizes = 1, [TILE_ROWS] * 8, [LINE, 0] * 8
        content = bytes([palette, *[0] * 15, *sizes, *[0] * 16, *lines, *[0] * 8])
        self._tile("ldtilecfg", self.table("tiles", content))

    def release_tiles(self) -> None:
        self._tile("tilerelease")

    def zero_tile(self, tile: int) -> None:
        self._tile("tilezero", I8(tile))

    def load_tile(self, tile: int, pointer: Value, stride: int) -> None:
        """Lines that lie `stride` bytes apart."""
        self._tile("tileloadd64", I8(tile), pointer, I64(stride))

    def store_tile(self, tile: int, pointer: Value) -> None:
        self._tile("tilestored64", I8(tile), pointer, I64(LINE))

    def multiply_tiles(self, total: int, inputs: int, weights: int, *, signed: bool) -> None:
        """total[m][n] += inputs[m] . weights[n] over 64 values, i32: s8 inputs, a line for each m; s8 or u8 weights.
        Three tiles: an instruction that names one of them twice is illegal."""
        self._tile("tdpbssd" if signed else "tdpbsud", I8(total), I8(inputs), I8(weights))

    def _tile(self, name: str, *operands: Value) -> None:
        self.call(f"llvm.x86.{name}", ir.VoidType(), *operands)


class Folded(Amx):
    """What a type's `emit_strip` makes tiles with: products go nowhere, weights times scales to memory.

    `place`: where the lower bytes lie, VALUES_BYTES of them, and then the upper ones. `upper`: how much one of these counts, as
    a shift; they are signed if that is 8.
    """

    def __init__(self, builder: Builder, place: Value) -> None:
        super().__init__(builder)
        self._place = place
        self.upper = 8

    def strip_scale(self, scales: Value, index: int, *, signed: bool = False) -> Value:
        return self.strip_pairs(scales, index, index, signed=signed), signed

    def strip_dot(
        self, totals: Sequence[Value], weights: Iterable[Value], xs: list[Value], offsets: Sequence[int], scale: Value,
        largest: int, wait: Wait,
    ) -> list[Value]:  # fmt: skip
        for register, offset in zip(weights, offsets, strict=True):
            for part, value in enumerate(self._folded(register, scale, largest)):
                self.store(value, self._place, VALUES_BYTES * part + TILE_ROWS * offset)
        return list(totals)

    def _folded(self, quants: Value, scale: Value, largest: int) -> tuple[Value, Value]:
        """u8 quants times a scale: the lower bytes and the upper ones."""
        if scale is None:
            return quants, self.zero(quants.type)
        factor, signed = scale
        pairs = self.cast(quants, factor.type)
        if not signed and largest <= _NARROW:  # a scale has six bits: two products of bytes, neighbours together
            self.upper = 3
            return self.mul(pairs, self.band(factor, 7)), self.mul(pairs, self.shr(factor, 3))
        even, odd = self.mul(self.band(pairs, 0xFF), factor), self.mul(self.shr(pairs, 8), factor)
        return self.bor(self.band(even, 0xFF), self.shl(odd, 8)), self.bor(self.shr(even, 8), self.band(odd, 0xFF00))


class Multiplied(Amx):
    """What a type's `emit_strip` finishes a block with whose sums of products, `products`, are there already."""

    def __init__(self, builder: Builder, products: Sequence[Value]) -> None:
        super().__init__(builder)
        self._products: Sequence[Value] | None = products

    def strip_dot(
        self, totals: Sequence[Value], weights: Iterable[Value], xs: list[Value], offsets: Sequence[int], scale: Value,
        largest: int, wait: Wait,
    ) -> list[Value]:  # fmt: skip
        products, self._products = self._products, None  # of all groups, so they count once
        return list(totals) if products is None else [self.add(*both) for both in zip(totals, products, strict=True)]
