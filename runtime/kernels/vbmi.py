"""SIMD primitives of CPUs whose AVX-512 looks bytes up in tables and multiplies bits and bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from llvmlite import ir

from runtime.kernels.basics import I8, Value
from runtime.kernels.strips import StripEmitter
from runtime.kernels.x86 import Avx512

NIBBLE = 15  # half a byte is as soon shifted and masked
LOOKED_UP = 1024  # rows of the largest codebook that is sooner looked up in registers


class _Bfloat(ir.types.Type):  # type: ignore[misc]  # llvmlite ships no types
    """LLVM's bfloat, which llvmlite does not name."""

    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bfloat)

    def __hash__(self) -> int:
        return hash(_Bfloat)


class Avx512Vbmi(Avx512):
    """Also VBMI, which looks bytes up in tables of 128 in registers and takes fields out of words, and GFNI."""

    tier = "avx512vbmi"
    indices_at_once = 64

    def octets(self, values: Value) -> Iterator[Value]:
        return StripEmitter.octets(self, values)  # one shuffle by bytes for each

    def even_signs(self, sevens: Value) -> Value:
        # each bit of a result is the parity of some bits: the first seven as they are, and that of all seven
        return self._affine(sevens, [*(1 << bit for bit in range(7)), 0x7F] * (sevens.type.count // 8))

    def shift_bytes(self, value: Value, left: Sequence[int], mask: int) -> Value:
        size = value.type.count // len(left)
        if not any(left) or size % 8 or mask == NIBBLE:
            return super().shift_bytes(value, left, mask)
        sources = [[bit - count if mask >> bit & 1 else -1 for bit in range(8)] for count in left]
        rows = [[1 << source if 0 <= source < 8 else 0 for source in part] * (size // 8) for part in sources]
        return self._affine(value, [row for part in rows for row in part])

    def _affine(self, value: Value, rows: Sequence[int]) -> Value:
        """Each bit of a byte the parity of those bits that its row says: eight rows for eight bytes, the lowest bit's first."""
        matrices = [row for first in range(0, len(rows), 8) for row in reversed(rows[first : first + 8])]
        return self._by_register(self._affine_register, value, self.constant(value.type, matrices))

    def _affine_register(self, value: Value, matrices: Value) -> Value:
        return self.call(f"llvm.x86.vgf2p8affineqb.{8 * value.type.count}", value.type, value, matrices, I8(0))

    def lookup_nibbles(self, table: Sequence[int], packed: Value, *, upper: bool) -> Value:
        if packed.type.count != self.register:
            return super().lookup_nibbles(table, packed, upper=upper)
        # six bits of an index count, so the table stands there four times, and nothing is to be masked
        words = self.cast(packed, self.vector(self.I32, self.lanes))
        places = self.cast(self.shr(words, 4), packed.type) if upper else packed
        return self.call("llvm.x86.avx512.permvar.qi.512", packed.type, self.constant(packed.type, [*table] * 4), places)

    def fields(self, words: Value, firsts: Sequence[int], width: int) -> Value:
        return self.band(self._multishift(words, firsts), (1 << width) - 1)

    def _multishift(self, words: Value, firsts: Sequence[int]) -> Value:
        """For each i64 the eight bits from each of `firsts` on."""
        kind = self.bytes(8 * words.type.count)
        control = self.constant(kind, list(firsts) * words.type.count)
        return self.call(f"llvm.x86.avx512.pmultishift.qb.{8 * kind.count}", kind, control, self.cast(words, kind))

    def entries(
        self, name: str, grid: Sequence[Sequence[int]], indices: Sequence[Value], single: Callable[[int], Value] | None
    ) -> Iterator[Value]:
        """By 16 bits for each entry, which say for each of its values what level it has."""
        if len(grid) > LOOKED_UP:
            yield from super().entries(name, grid, indices, single)
            return
        levels = sorted({value for row in grid for value in row})
        width = len(grid[0])
        bits = 16 // width
        codes = [sum(levels.index(value) << bits * place for place, value in enumerate(row)) for row in grid]
        count = indices[0].type.count
        low, *high = (self.widened(part, 64) for part in indices)
        planes = [self._looked_up([code >> shift & 255 for code in codes], low, *high) for shift in (0, 8)]
        table = self.constant(low.type, [levels[min(place % (1 << bits), len(levels) - 1)] for place in range(64)])
        for first in range(0, count, 64 // width):  # to each i64 the codes of its eight values
            owners = [[first + 8 // width * word + entry for entry in range(8 // width)] for word in range(8)]
            lanes = [lane for own in owners for lane in [*(64 * half + entry for entry in own for half in (0, 1)), *[0] * 8][:8]]
            spread = self.cast(self.shuffle(planes[0], lanes, planes[1]), self.vector(self.I64, 8))
            places = self._multishift(spread, [bits * value for value in range(8)])
            yield self.call("llvm.x86.avx512.permvar.qi.512", table.type, table, places)

    def _looked_up(self, table: Sequence[int], low: Value, high: Value | None = None) -> Value:
        """Entries of a table of bytes, a multiple of 128, at 64 indices: seven bits by each look-up, and more by choosing."""
        parts = [self.constant(low.type, table[first : first + 64]) for first in range(0, len(table), 64)]
        found = [
            self.call("llvm.x86.avx512.vpermi2var.qi.512", low.type, first, low, second)
            for first, second in zip(parts[::2], parts[1::2], strict=True)
        ]
        byte, bit = low, 7
        while len(found) > 1:
            # the sign, not bit 7: LLVM otherwise compares with -1, which it makes from an old value and so waits for that
            upper = self._negative(byte) if bit == 7 else self._has_bit(byte, bit)
            found = [self.builder.select(upper, b, a) for a, b in zip(found[::2], found[1::2], strict=True)]
            byte, bit = high, (bit + 1) % 8 if byte is low else bit + 1
        return found[0]

    def _negative(self, values: Value) -> Value:
        return self.builder.icmp_signed("<", values, self.zero(values.type))

    def _has_bit(self, values: Value, bit: int) -> Value:
        return self.builder.icmp_signed("!=", self.band(values, 1 << bit), self.zero(values.type))


class Avx512Bf16(Avx512Vbmi):
    """Also products of bfloat16."""

    tier = "avx512bf16"
    multiplies_brains = True

    def dot_brains(self, total: Value, left: Value, right: Value) -> Value:
        kind = ir.VectorType(_Bfloat(), 2 * total.type.count)
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * total.type.count}"
        return self.call(name, total.type, total, self.cast(left, kind), self.cast(right, kind))
