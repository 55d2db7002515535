"""SIMD primitives of CPUs whose AVX-512 looks bytes up in tables and multiplies bits and bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from llvmlite import ir

from runtime.kernels.basics import I8, Value
from runtime.kernels.strips import StripEmitter
from runtime.kernels.x86 import Avx512

NIBBLE = 15  # half a byte is as soon shifted and masked
AT_ONCE = 8  # registers of indices for which parts of a table are loaded
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
        levels, bits, tables = _codes(grid)
        width, count = len(grid[0]), indices[0].type.count
        low, *high = (self.widened(part, 64) for part in indices)
        planes = [self._looked_up(table, low, *high) for table in tables]
        table = self.constant(low.type, [levels[min(place % (1 << bits), len(levels) - 1)] for place in range(64)])
        for first in range(0, count, 64 // width):  # to each i64 the codes of its eight values
            owners = [[first + 8 // width * word + entry for entry in range(8 // width)] for word in range(8)]
            lanes = [lane for own in owners for lane in [*(64 * half + entry for entry in own for half in (0, 1)), *[0] * 8][:8]]
            spread = self.cast(self.shuffle(planes[0], lanes, planes[1]), self.vector(self.I64, 8))
            places = self._multishift(spread, [bits * value for value in range(8)])
            yield self.call("llvm.x86.avx512.permvar.qi.512", table.type, table, places)

    def lane_fields(self, dwords: Value, firsts: Sequence[int]) -> Value:
        """The eight bits of each row's four bytes from each of four `firsts` on; those beyond are anything."""
        words = self.cast(dwords, self.vector(self.I64, 8))
        return self._multishift(words, [(half + first) % 64 for half in (0, 32) for first in firsts])

    def lane_entries(
        self, grid: Sequence[Sequence[int]], indices: Iterable[Sequence[Value]], flags: Sequence[Value],
        weight: Callable[[int, int], int],
    ) -> Iterator[Value]:  # fmt: skip
        """For sixteen rows, of each a block: `weight` of a level of an entry, and its flag, as bytes, four of each row at a time.

        `grid`: 8 or 4 levels an entry; `indices`, `flags`: see `runtime.quants.laned`.
        """
        levels, bits, tables = _codes(grid)
        fours = len(grid[0]) // 4  # registers of an entry
        places = [(levels[min(place % (1 << bits), len(levels) - 1)], place >> bits & 1) for place in range(64)]
        weights = self.constant(self.bytes(64), [weight(*place) for place in places])
        for number, planes in enumerate(self._planes(tables, indices)):
            if fours == 1:  # both bytes of an entry beside each other
                orders = [[4 * row + k + 64 * p for row in range(16) for k in two for p in (0, 1)] for two in ((0, 1), (2, 3))]
                planes = [self.shuffle(planes[0], order, planes[1]) for order in orders]
            for four in range(4 * fours):
                entry, part = divmod(four, fours)
                plane, first = (planes[part], 8 * entry) if fours == 2 else (planes[entry // 2], 16 * (entry % 2))
                codes = self.lane_fields(plane, [first + bits * value for value in range(4)])
                flag, bit = divmod(4 * (4 * fours * number + four), 32)
                flagged = self.lane_fields(flags[flag], [bit + value - bits for value in range(4)])
                codes = self.bor(self.band(codes, 255 - (1 << bits)), self.band(flagged, 1 << bits))
                yield self.call("llvm.x86.avx512.permvar.qi.512", weights.type, weights, codes)

    def _planes(self, tables: Sequence[Sequence[int]], indices: Iterable[Sequence[Value]]) -> Iterator[list[Value]]:
        """The entries of each table at 64 indices after the other."""
        if len(tables[0]) <= 256:
            yield from ([self._looked_up(table, *both) for table in tables] for both in indices)
            return
        everything = list(indices)
        for first in range(0, len(everything), AT_ONCE):
            yield from self._planes_together(tables, everything[first : first + AT_ONCE])

    def _planes_together(self, tables: Sequence[Sequence[int]], indices: Sequence[Sequence[Value]]) -> list[list[Value]]:
        """The same, a part of the tables after the other, which is loaded once for all: an index stays until its part comes."""
        kind = indices[0][0].type
        numbers = [self._part(len(tables[0]) // 128, *both) for both in indices]
        found = [[low] * len(tables) for low, _ in indices]
        for part in range(len(tables[0]) // 128):
            pieces = (table[first : first + 64] for table in tables for first in (128 * part, 128 * part + 64))
            loaded = [self._after(self.constant(kind, piece), [found[-1][-1]]) for piece in pieces]
            for number, register in zip(numbers, found, strict=True):
                here = self.builder.icmp_signed("==", number, self.constant(kind, part))
                for plane, codes in enumerate(register):
                    new = self.call("llvm.x86.avx512.vpermi2var.qi.512", kind, loaded[2 * plane], codes, loaded[2 * plane + 1])
                    register[plane] = self.builder.select(here, new, codes)
        return found

    def _part(self, parts: int, low: Value, high: Value) -> Value:
        """Which 128 entries of a table each index is among."""
        return self.bor(self.band(self.add(high, high), parts - 2), self.shift_bytes(low, (-7,), 1))

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


def _codes(grid: Sequence[Sequence[int]]) -> tuple[list[int], int, list[list[int]]]:
    """The levels of a codebook, the bits of each value's place among them, and tables of the lower and the upper byte of all
    places of an entry."""
    levels = sorted({value for row in grid for value in row})
    bits = 16 // len(grid[0])
    codes = [sum(levels.index(value) << bits * place for place, value in enumerate(row)) for row in grid]
    return levels, bits, [[code >> shift & 255 for code in codes] for shift in (0, 8)]


class Avx512Bf16(Avx512Vbmi):
    """Also products of bfloat16."""

    tier = "avx512bf16"
    multiplies_brains = True

    def dot_brains(self, total: Value, left: Value, right: Value) -> Value:
        kind = ir.VectorType(_Bfloat(), 2 * total.type.count)
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * total.type.count}"
        return self.call(name, total.type, total, self.cast(left, kind), self.cast(right, kind))
