"""SIMD primitives: Python methods that append LLVM IR to a kernel. With `x86.py` the only user of vector IR.

A kernel's whole loop nest is emitted inside one numba intrinsic (Python loops unroll), which compiles five to ten times
faster than an intrinsic per operation. Leaves are written once, over virtual vectors of up to 64 bytes; the classes here
(this one, and those of `x86.py`) differ in how a product of bytes is formed and in the width of a register, and LLVM splits
the rest.

Values are LLVM SSA values, so a float sum has exactly the order in which it is emitted: no fast-math flag is ever set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from llvmlite import ir

from runtime.kernels.basics import CACHE_LINE, I1, I8, I16, I32, I64, POINTER, Basics, Builder, Operand, Type, Value, bits_of


class Emitter(Basics):
    """Plain LLVM IR for 16-byte registers: any CPU. Also the base of the x86 tiers, which override what they do better."""

    tier = "portable"

    # ------------------------------------------------------------ products of small integers

    def madd16(self, left: Value, right: Value) -> Value:
        """i16 x i16, neighbours added: <n x i16>, <n x i16> -> <n/2 x i32>."""
        count = left.type.count
        products = self.mul(self.sext(left, I32), self.sext(right, I32))
        return self.add(self.shuffle(products, range(0, count, 2)), self.shuffle(products, range(1, count, 2)))

    adds_words = False  # whether one instruction does `dot_words`

    def dot_words(self, total: Value, left: Value, right: Value) -> Value:
        """total + i16 x i16, two products to a lane: <n x i16>, <n x i16> -> <n/2 x i32>; of one lane too."""
        return self.add(total, self.madd16(left, right))

    def dot(self, start: Value, unsigned: Value, signed: Value) -> Value:
        """start + u8 x s8, four products to a lane: -> <n/4 x i32>. |signed| <= 127; unsigned <= 127 on CPUs without VNNI."""
        return self.add(start, self._by_register(lambda u, s: self._quads(self.zext(u, I16), s), unsigned, signed))

    def dot_signed(self, weights: Value, signed: Value, bias: Value) -> Value:
        """s8 x s8, four products to a lane: <32 x i8>, <32 x i8> -> <8 x i32>.

        `bias` (i32) is -128 times the sum of `signed`, for CPUs that can only multiply u8 by s8; |signed| <= 127.
        """
        return self._by_register(lambda w, s: self._quads(self.sext(w, I16), s), weights, signed)

    def _quads(self, left: Value, right: Value, scale: Value | None = None) -> Value:
        """A register of products, times a scale: <16 x i16>, <16 x s8> -> <4 x i32>.

        First the two halves are added, in i16 (2 * 128 * 127 fits), and then neighbours.
        """
        products = self.add(*self.halves(self.mul(left, self.sext(right, I16))))
        return self.madd16(products, self.constant(products.type, 1) if scale is None else scale)

    def lane_scales(self, scales: Value, order: Sequence[int], *, signed: bool) -> list[Operand]:
        """The operands for `dot_scaled`, one for each 128 of the 256 values of a super-block.

        `scales`: <16 x i8>; `order`: which of them each 16 consecutive values have.
        """
        wide = self.sext(scales, I16) if signed else self.zext(scales, I16)
        spread = [self.shuffle(wide, [group] * 8) for group in order]
        return [tuple(spread[first : first + 8]) for first in (0, 8)]

    def pair_scales(self, pairs: Value) -> list[Operand]:
        """The same of scales that are there twice each, <16 x i16>, from 0 to 127."""
        return self.lane_scales(self.trunc(pairs, I8), range(16), signed=False)

    def dot_scaled(self, totals: Sequence[Value], weights: Sequence[Value], inputs: Sequence[Sequence[Value]], scales: Operand
                   ) -> list[Value]:  # fmt: skip
        """For each column: total + scale * (u8 weights x s8 inputs) over 128 values (two <64 x i8>), in `lanes` i32 lanes.

        weights <= 63 and |inputs| <= 127, so that the sum of four products fits i16.
        """
        columns = [self._registers(vectors) for vectors in inputs]
        sums = list(totals)
        for k, (u, scale) in enumerate(zip(self._registers(weights), scales, strict=True)):
            for c, column in enumerate(columns):
                sums[c] = self.add(sums[c], self._quads(self.zext(u, I16), column[k], scale))
        return sums

    def byte_scales(self, scales: Value, largest: int) -> list[Operand]:
        """The operands for `dot_bytes`, as `lane_scales`; `scales`: <16 x i8>, signed, one for each 16 values."""
        return self.lane_scales(scales, range(16), signed=True)

    def dot_bytes(
        self, totals: Sequence[Value], weights: Sequence[Value], inputs: Sequence[Sequence[Value]], scales: Operand, largest: int
    ) -> list[Value]:
        """As `dot_scaled`, with signed weights up to `largest` (at most 127) in magnitude."""
        columns = [self._registers(vectors) for vectors in inputs]
        sums = list(totals)
        for k, (w, scale) in enumerate(zip(self._registers(weights), scales, strict=True)):
            for c, column in enumerate(columns):
                sums[c] = self.add(sums[c], self._quads(self.sext(w, I16), column[k], scale))
        return sums

    def _registers(self, vectors: Sequence[Value]) -> list[Value]:
        """Vectors cut into registers, in order."""
        if vectors[0].type.count == self.register:
            return list(vectors)
        return self._registers([half for vector in vectors for half in self.halves(vector)])

    # ------------------------------------------------------------ tables and bits

    def lookup(self, table: Sequence[int], indices: Value) -> Value:
        """table[i] for each byte i of `indices`; sixteen entries, indices below 16."""
        level = [self.constant(indices.type, entry) for entry in table]
        for bit in range(4):
            chosen = self.builder.icmp_signed("!=", self.band(indices, 1 << bit), self.zero(indices.type))
            level = [self.builder.select(chosen, high, low) for low, high in zip(level[::2], level[1::2], strict=True)]
        return level[0]

    def lookup_nibbles(self, table: Sequence[int], packed: Value, *, upper: bool) -> Value:
        """As `lookup`, at the lower or the upper four bits of each byte."""
        return self.lookup(table, self.shift_bytes(packed, (-4 if upper else 0,), 15))

    def mask(self, bits: Value) -> Value:
        """An integer of n bits -> <n x i8>: -1 where the bit is set (lowest first), 0 elsewhere."""
        return self.sext(self.cast(bits, ir.VectorType(I1, bits.type.width)), I8)

    def octets(self, values: Value) -> Iterator[Value]:
        """Each of 32 bytes eight times, four <64 x i8>."""
        return (self.shuffle(values, [8 * quarter + i // 8 for i in range(64)]) for quarter in range(4))

    def sign_masks(self, eights: Value) -> Iterator[Value]:
        """The bits of 32 bytes, lowest first: which of 256 values are negative, four <64 x i1>."""
        for octets in self.octets(eights):
            bits = self.constant(octets.type, [1 << i % 8 for i in range(64)])
            yield self.builder.icmp_signed("==", self.band(octets, bits), bits)

    def bits(self, integer: Value) -> Value:
        """The bits of an integer, lowest first, <n x i1>."""
        return self.cast(integer, ir.VectorType(I1, integer.type.width))

    def flipped(self, values: Value, negative: Value) -> Value:
        """Bytes, those negated where `negative` (i1) is set."""
        mask = self.sext(negative, I8)
        return self.sub(self.xor(values, mask), mask)

    def even_signs(self, sevens: Value) -> Value:
        """Bytes of seven sign bits -> of eight, the last such that the number of minus signs is even."""
        wide = self.cast(sevens, ir.VectorType(I32, sevens.type.count // 4))
        folded = self.band(self.xor(sevens, self.cast(self.shr(wide, 4), sevens.type)), 15)
        return self.bor(sevens, self.lookup([128 * (n.bit_count() % 2) for n in range(16)], folded))

    def fields(self, words: Value, firsts: Sequence[int], width: int) -> Value:
        """Eight fields of `width` bits of each i64 as bytes, <n x i64> -> <8 n x i8>.

        `firsts`: the lowest bit of each, evenly spaced in each half of the eight and in each of its halves.
        """
        place = self.shr(words, firsts[0])
        for count in (4, 2, 1):  # the upper half of what is left goes where it belongs
            size, moved = 8 * count, 8 * count - (firsts[count] - firsts[0])
            mask = (1 << firsts[count - 1] - firsts[0] + width) - 1
            low = sum(mask << start for start in range(0, 64, 2 * size))
            place = self.bor(self.band(place, low), self.band(self.shl(place, moved), low << size))
        return self.cast(place, self.bytes(8 * words.type.count))

    # ------------------------------------------------------------ entries of codebooks

    indices_at_once = 8
    """How many rows of a codebook `entries` looks up at a time; of few it makes as many as there are."""

    def entries(
        self, name: str, grid: Sequence[Sequence[int]], indices: Sequence[Value], single: Callable[[int], Value] | None
    ) -> Iterator[Value]:
        """Rows of `grid` (8 or 4 bytes each) at some indices, in order, <64 x i8> for each 64 bytes, made when asked for.

        `indices`: bytes, and, where there are more than 256 rows, other bytes with the upper bits. `single`: index i as an i64,
        where that is sooner there than from vectors. `name`: the grid's.
        """
        element = I64 if len(grid[0]) == 8 else I32
        table = self.table(f"grid_{name}", [value for row in grid for value in row])
        some, count = 512 // element.width, indices[0].type.count
        words = self._words(len(grid), *indices) if single is None else None
        for first in range(0, count, some):
            if single is not None:
                part = [single(first + i) for i in range(some)]
            else:
                part = self.unpacked(self.shuffle(words, range(first, first + some)))
            yield self.cast(self.gather(table, element, part), self.bytes(64))

    def _words(self, rows: int, low: Value, high: Value | None = None) -> Value:
        wide = self.zext(low, I16)
        return wide if high is None else self.bor(wide, self.shl(self.zext(self.band(high, rows - 1 >> 8), I16), 8))

    def mask_of(self, vector: Value) -> Value:
        """-1 where a lane is not zero, 0 where it is."""
        return self.sext(self.builder.icmp_signed("!=", vector, self.zero(vector.type)), vector.type.element)

    def table(self, name: str, content: Sequence[int]) -> Value:
        """Pointer to constant bytes (0-255 each), kept in the module under `name`."""
        module = self.builder.module
        if name not in module.globals:
            kind = ir.ArrayType(I8, len(content))
            data = ir.GlobalVariable(module, kind, name)
            data.linkage, data.global_constant, data.align = "internal", True, CACHE_LINE
            data.initializer = ir.Constant(kind, bytearray(content))
        return self.builder.bitcast(module.globals[name], POINTER)

    def gather(self, table: Value, element: Type, indices: Sequence[Value]) -> Value:
        """The entries at `indices` (i64) of a table of `element`: a vector."""
        vector = ir.Constant(ir.VectorType(element, len(indices)), ir.Undefined)
        for lane, index in enumerate(indices):
            entry = self.load(table, self.builder.mul(index, I64(bits_of(element) // 8)), element)
            vector = self.builder.insert_element(vector, entry, I32(lane))
        return vector


def standalone(body: Callable[[Builder], None]) -> str:
    """IR text of a module with one function, `void kernel(i64, i64)`, that `body` fills."""
    module = ir.Module("standalone")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64, I64]), "kernel")
    body(ir.IRBuilder(function.append_basic_block("entry")))
    return str(module)
