"""SIMD primitives: Python methods that append LLVM IR to a kernel. With `x86.py` the only user of vector IR.

A kernel's whole loop nest is emitted inside one numba intrinsic (Python loops unroll), which compiles five to ten times
faster than an intrinsic per operation. Leaves are written once, over virtual vectors of up to 64 bytes; the classes here
(this one, and those of `x86.py`) differ in how a product of bytes is formed and in the width of a register, and LLVM splits
the rest.

Values are LLVM SSA values, so a float sum has exactly the order in which it is emitted: no fast-math flag is ever set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

Value = Any  # an llvmlite.ir.Value: llvmlite ships no types
Type = Any
Builder = Any
Operand = tuple[Value, ...]  # scales for 128 values, in the form that the tier's `dot_scaled` takes

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()
POINTER = I8.as_pointer()
CACHE_LINE = 64



class Emitter:
    """Plain LLVM IR for 16-byte registers: any CPU. Also the base of the x86 tiers, which override what they do better."""

    tier = "portable"
    register = 16  # bytes
    registers = 16
    I8, I16, I32, I64, F32 = I8, I16, I32, I64, F32  # for those who import no LLVM

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    @property
    def lanes(self) -> int:
        """32-bit lanes in a register."""
        return self.register // 4

    # ------------------------------------------------------------ types and constants

    @staticmethod
    def bytes(count: int) -> Type:
        return ir.VectorType(I8, count)

    @staticmethod
    def integer(size: int) -> Type:
        """The integer type of `size` bytes."""
        return ir.IntType(8 * size)

    @staticmethod
    def floats(count: int) -> Type:
        return ir.VectorType(F32, count)

    @staticmethod
    def vector(element: Type, count: int) -> Type:
        return ir.VectorType(element, count)

    @staticmethod
    def zero(kind: Type) -> Value:
        return ir.Constant(kind, None)

    @staticmethod
    def constant(kind: Type, value: float | Sequence[float]) -> Value:
        """`value` in every lane, or one value a lane."""
        if not isinstance(kind, ir.VectorType):
            return ir.Constant(kind, value)
        return ir.Constant(kind, list(value) if isinstance(value, Sequence) else [value] * kind.count)

    def _like(self, value: Value, other: Value) -> Value:
        return other if isinstance(other, ir.Value) else self.constant(value.type, other)

    # ------------------------------------------------------------ memory

    def index(self, value: Value | int) -> Value:
        return value if isinstance(value, ir.Value) else I64(value)

    def pointer(self, address: Value) -> Value:
        """i64 address -> i8 pointer."""
        return self.builder.inttoptr(address, POINTER)

    def at(self, pointer: Value, offset: Value | int) -> Value:
        return self.builder.gep(pointer, [self.index(offset)])

    def load(self, pointer: Value, offset: Value | int, kind: Type) -> Value:
        """Unaligned load."""
        return self.builder.load(self.builder.bitcast(self.at(pointer, offset), kind.as_pointer()), align=1)

    def store(self, value: Value, pointer: Value, offset: Value | int) -> None:
        """Unaligned store."""
        self.builder.store(value, self.builder.bitcast(self.at(pointer, offset), value.type.as_pointer()), align=1)

    def scratch(self, size: int) -> Value:
        """So many bytes of the stack."""
        with self.builder.goto_entry_block():
            return self.builder.bitcast(self.builder.alloca(ir.ArrayType(I8, size)), POINTER)

    def load_pointer(self, table: Value, index: int) -> Value:
        """Entry `index` of an int64 array of addresses."""
        return self.pointer(self.load(table, 8 * index, I64))

    def prefetch(self, pointer: Value, line: int, *, once: bool = False) -> None:
        """Ask for a cache line, by its number from `pointer` on; an address that is not mapped is ignored by the CPU. `once`: it
        need not stay in the larger caches."""
        kind = ir.FunctionType(ir.VoidType(), [POINTER, I32, I32, I32])
        function = self._declare(kind, "llvm.prefetch.p0")
        self.builder.call(function, [self.at(pointer, CACHE_LINE * line), I32(0), I32(0 if once else 3), I32(1)])

    def ahead(self, pointer: Value, distance: int, end: Value, following: Value) -> Value:
        """The address `distance` bytes after `pointer`, where what lies beyond `end` goes on at `following` (all i64 but
        `pointer`)."""
        there = self.builder.add(self.builder.ptrtoint(pointer, I64), I64(distance))
        beyond = self.builder.sub(there, end)
        inside = self.builder.icmp_signed("<", beyond, I64(0))
        return self.pointer(self.builder.select(inside, there, self.builder.add(following, beyond)))

    # ------------------------------------------------------------ lanes

    def shuffle(self, first: Value, lanes: Sequence[int], second: Value | None = None) -> Value:
        other = ir.Constant(first.type, ir.Undefined) if second is None else second
        return self.builder.shuffle_vector(first, other, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))

    def splat(self, scalar: Value, count: int) -> Value:
        undefined = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
        return self.shuffle(self.builder.insert_element(undefined, scalar, I32(0)), [0] * count)

    def load_splat(self, pointer: Value, offset: Value | int, kind: Type, count: int) -> Value:
        return self.splat(self.load(pointer, offset, kind), count)

    def lane(self, vector: Value, index: int) -> Value:
        return self.builder.extract_element(vector, I32(index))

    def unpacked(self, vector: Value) -> list[Value]:
        """Lanes of i16 as i64, four taken out at a time: one by one they cost two operations each, and by way of memory more."""
        quads = self.cast(vector, ir.VectorType(I64, vector.type.count // 4))
        words = [self.lane(quads, i) for i in range(quads.type.count)]
        return [self.band(self.shr(word, shift), 0xFFFF) for word in words for shift in (0, 16, 32, 48)]

    def first_lane(self, scalar: Value, count: int) -> Value:
        """`scalar` in lane 0, zero in the others."""
        return self.builder.insert_element(self.zero(ir.VectorType(scalar.type, count)), scalar, I32(0))

    def halves(self, vector: Value) -> tuple[Value, Value]:
        middle = vector.type.count // 2
        return self.shuffle(vector, range(middle)), self.shuffle(vector, range(middle, 2 * middle))

    def concat(self, low: Value, high: Value) -> Value:
        return self.shuffle(low, range(2 * low.type.count), high)

    def doubled(self, vector: Value) -> Value:
        return self.shuffle(vector, list(range(vector.type.count)) * 2)

    def widened(self, vector: Value, count: int) -> Value:
        """Zeros appended up to `count` lanes."""
        if vector.type.count == count:
            return vector
        return self.widened(self.concat(vector, self.zero(vector.type)), count)

    def to_lanes(self, vector: Value) -> Value:
        """A vector of sums with as many lanes as a register has: folded, or zeros appended."""
        return self.widened(self.fold(vector, self.lanes), self.lanes)

    def fold(self, vector: Value, count: int) -> Value:
        """Halves added until `count` lanes are left."""
        while vector.type.count > count:
            vector = self.add(*self.halves(vector))
        return vector

    def sum(self, vector: Value) -> Value:
        """All lanes, added pairwise: lane i to lane i + n/2 first."""
        low, high = self.halves(self.fold(vector, 2))
        return self.add(self.lane(low, 0), self.lane(high, 0))

    # ------------------------------------------------------------ arithmetic

    def add(self, left: Value, right: Value) -> Value:
        return self.builder.fadd(left, right) if _is_float(left) else self.builder.add(left, right)

    def sub(self, left: Value, right: Value) -> Value:
        return self.builder.fsub(left, right) if _is_float(left) else self.builder.sub(left, right)

    def mul(self, left: Value, right: Value | float) -> Value:
        right = self._like(left, right)
        return self.builder.fmul(left, right) if _is_float(left) else self.builder.mul(left, right)

    def fma(self, left: Value, right: Value, addend: Value) -> Value:
        """left * right + addend; rounded twice here, because a CPU without FMA would call a library function a lane."""
        return self.add(self.mul(left, right), addend)

    def negative(self, value: Value) -> Value:
        return self.builder.fneg(value)

    def band(self, left: Value, right: Value | int | Sequence[int]) -> Value:
        return self.builder.and_(left, self._like(left, right))

    def bor(self, left: Value, right: Value | int) -> Value:
        return self.builder.or_(left, self._like(left, right))

    def xor(self, left: Value, right: Value | int) -> Value:
        return self.builder.xor(left, self._like(left, right))

    def shl(self, value: Value, count: int | Sequence[int]) -> Value:
        return self.builder.shl(value, self.constant(value.type, count))

    def shr(self, value: Value, count: int | Sequence[int]) -> Value:
        """Logical shift."""
        return self.builder.lshr(value, self.constant(value.type, count))

    def sar(self, value: Value, count: int) -> Value:
        return self.builder.ashr(value, self.constant(value.type, count))

    def shift_bytes(self, value: Value, left: Sequence[int], mask: int) -> Value:
        """Each byte shifted left (negative: right), then masked. `left` has one count for each equal part of the vector.

        The shift is one of 32-bit lanes, so `mask` must clear what came over from the neighbour.
        """
        wide = self.cast(value, ir.VectorType(I32, value.type.count // 4))
        counts = [count for count in left for _ in range(wide.type.count // len(left))]
        if any(count > 0 for count in counts):
            assert min(counts) >= 0
            wide = self.shl(wide, counts)
        elif any(counts):
            wide = self.shr(wide, [-count for count in counts])
        return self.band(self.cast(wide, value.type), mask)

    # ------------------------------------------------------------ conversions

    def cast(self, value: Value, kind: Type) -> Value:
        """The same bits as another type."""
        return self.builder.bitcast(value, kind)

    def zext(self, vector: Value, element: Type) -> Value:
        return self.builder.zext(vector, with_element(vector.type, element))

    def sext(self, vector: Value, element: Type) -> Value:
        return self.builder.sext(vector, with_element(vector.type, element))

    def trunc(self, vector: Value, element: Type) -> Value:
        return self.builder.trunc(vector, with_element(vector.type, element))

    def float(self, integers: Value) -> Value:
        """i32 -> f32."""
        return self.builder.sitofp(integers, with_element(integers.type, F32))

    def truncated(self, floats: Value) -> Value:
        """f32 -> i32, towards zero; the floats are in its range."""
        return self.builder.fptosi(floats, with_element(floats.type, I32))

    def half(self, bits: Value) -> Value:
        """f16 bits (i16, scalar or vector) -> f32, by integer operations: the baseline CPU has no such instruction.

        The exponent is rebased by a multiplication with 2^112, which is exact and turns f16 subnormals into normal
        numbers; infinities and NaNs then get their all-ones exponent back.
        """
        kind = with_element(bits.type, I32)
        wide = self.zext(bits, I32)
        magnitude = self.shl(self.band(wide, 0x7FFF), 13)
        rebased = self.cast(self.mul(self.cast(magnitude, with_element(kind, F32)), 2.0**112), kind)
        special = self.builder.icmp_signed(">=", magnitude, self.constant(kind, 0x7C00 << 13))
        rebased = self.builder.select(special, self.bor(magnitude, 0x7F800000), rebased)
        sign = self.shl(self.band(wide, 0x8000), 16)
        return self.cast(self.bor(rebased, sign), with_element(kind, F32))

    def load_half(self, pointer: Value, offset: int, count: int) -> Value:
        """One f16 as f32 in `count` lanes."""
        return self.splat(self.half(self.load(pointer, offset, I16)), count)

    def brain(self, bits: Value) -> Value:
        """bf16 bits (i16, scalar or vector) -> f32."""
        return self.cast(self.shl(self.zext(bits, I32), 16), with_element(bits.type, F32))

    def abs(self, floats: Value) -> Value:
        kind = with_element(floats.type, I32)
        return self.cast(self.band(self.cast(floats, kind), 0x7FFFFFFF), floats.type)

    def maximum(self, left: Value, right: Value) -> Value:
        return self.builder.select(self.builder.fcmp_ordered(">", left, right), left, right)

    def where_above(self, value: Value, bound: Value, chosen: Value) -> Value:
        """`chosen` where value > bound, 0 elsewhere."""
        return self.builder.select(self.builder.fcmp_ordered(">", value, bound), chosen, self.zero(chosen.type))

    # ------------------------------------------------------------ products of small integers

    def madd16(self, left: Value, right: Value) -> Value:
        """i16 x i16, neighbours added: <n x i16>, <n x i16> -> <n/2 x i32>."""
        count = left.type.count
        products = self.mul(self.sext(left, I32), self.sext(right, I32))
        return self.add(self.shuffle(products, range(0, count, 2)), self.shuffle(products, range(1, count, 2)))

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

    def mask(self, bits: Value) -> Value:
        """An integer of n bits -> <n x i8>: -1 where the bit is set (lowest first), 0 elsewhere."""
        return self.sext(self.cast(bits, ir.VectorType(I1, bits.type.width)), I8)

    def spread_mask(self, eights: Value) -> Value:
        """Lanes of i32 that hold 8 bits each -> <8 lanes x i8>: -1 where the bit is set (lowest first), 0 elsewhere."""
        lanes = eights.type.count
        octets = self.shuffle(self.cast(eights, ir.VectorType(I8, 4 * lanes)), [4 * (i // 8) for i in range(8 * lanes)])
        bits = self.constant(octets.type, [1 << i % 8 for i in range(8 * lanes)])
        return self.sext(self.builder.icmp_signed("==", self.band(octets, bits), bits), I8)

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
            entry = self.load(table, self.builder.mul(index, I64(element.width // 8)), element)
            vector = self.builder.insert_element(vector, entry, I32(lane))
        return vector

    # ------------------------------------------------------------ control

    def loop(
        self,
        count: Value | int,
        carried: Sequence[Value],
        body: Callable[[Value, list[Value]], Sequence[Value]],
    ) -> list[Value]:
        """`carried = body(i, carried)` for i in [0, count); returns what was carried out (phi nodes)."""
        builder, count = self.builder, self.index(count)
        before = builder.basic_block
        head, after = builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", count, I64(0)), head, after)
        builder.position_at_end(head)
        i = _phi(builder, I64, I64(0), before)
        phis = [_phi(builder, value.type, value, before) for value in carried]
        results = body(i, list(phis))
        last = builder.basic_block
        following = builder.add(i, I64(1))
        for phi, value in zip([i, *phis], [following, *results], strict=True):
            phi.add_incoming(value, last)
        builder.cbranch(builder.icmp_signed("<", following, count), head, after)
        builder.position_at_end(after)
        outs = [_phi(builder, value.type, value, before) for value in carried]
        for out, value in zip(outs, results, strict=True):
            out.add_incoming(value, last)
        return outs

    # ------------------------------------------------------------ LLVM intrinsics

    def _declare(self, kind: Type, name: str) -> Value:
        known = self.builder.module.globals.get(name)
        return known if known is not None else ir.Function(self.builder.module, kind, name)

    def call(self, name: str, result: Type, *operands: Value) -> Value:
        kind = ir.FunctionType(result, [operand.type for operand in operands])
        return self.builder.call(self._declare(kind, name), operands)

    def _by_register(self, operation: Callable[..., Value], *operands: Value) -> Value:
        """`operation` on register-sized pieces of the operands."""
        first = operands[0].type
        if first.count * bits_of(first.element) <= 8 * self.register:
            return operation(*operands)
        pieces = zip(*(self.halves(operand) for operand in operands), strict=True)
        return self.concat(*(self._by_register(operation, *piece) for piece in pieces))


def _phi(builder: Builder, kind: Type, value: Value, block: Value) -> Value:
    phi = builder.phi(kind)
    phi.add_incoming(value, block)
    return phi


def _is_float(value: Value) -> bool:
    kind = value.type
    return bool((kind.element if isinstance(kind, ir.VectorType) else kind) == F32)


def with_element(kind: Type, element: Type) -> Type:
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def bits_of(element: Type) -> int:
    return 32 if element == F32 else int(element.width)


def standalone(body: Callable[[Builder], None]) -> str:
    """IR text of a module with one function, `void kernel(i64, i64)`, that `body` fills."""
    module = ir.Module("standalone")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64, I64]), "kernel")
    body(ir.IRBuilder(function.append_basic_block("entry")))
    return str(module)
