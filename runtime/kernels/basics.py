"""What all emitters share: Python methods that append LLVM IR for types, memory, lanes, arithmetic, loops and intrinsics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

Value = Any  # an llvmlite.ir.Value: llvmlite ships no types
Type = Any
Builder = Any
Operand = tuple[Value, ...]  # scales for 128 values, in the form that the tier's `dot_scaled` takes

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
POINTER = I8.as_pointer()
CACHE_LINE = 64


class Basics:
    """Plain LLVM IR for virtual vectors of up to 64 bytes."""

    tier: str
    register = 16  # bytes
    registers = 16
    multiplies_brains = False  # bfloat16 by bfloat16
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

    def scratch(self, size: int, align: int | None = None) -> Value:
        """So many bytes of the stack."""
        with self.builder.goto_entry_block():
            memory = self.builder.alloca(ir.ArrayType(I8, size))
            memory.align = align
            return self.builder.bitcast(memory, POINTER)

    def anew(self, pointer: Value) -> Value:
        """The same pointer, of which LLVM knows nothing: it then takes no bytes out of vectors that it has loaded from there."""
        return pointer

    def after(self, pointer: Value, value: Value) -> Value:
        """The same pointer, from which nothing is loaded before `value`, a register, is there, where that helps."""
        return pointer

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

    def sums(self, vectors: Sequence[Value]) -> list[Value]:
        """The sum of the lanes of each vector of integers (1, 2, 4 or 8): of four at a time with a third of the operations."""
        if len(vectors) > 4:
            return [total for first in range(0, len(vectors), 4) for total in self.sums(vectors[first : first + 4])]
        if len(vectors) == 4:
            folded = self.fold(self._added_pairs(*map(self._added_pairs, vectors[:2], vectors[2:])), 4)
            return [self.lane(folded, i) for i in (0, 1, 2, 3)]
        if len(vectors) == 2:
            folded = self.fold(self._added_pairs(*vectors), 2)
            return [self.lane(folded, i) for i in (0, 1)]
        return [self.sum(vector) for vector in vectors]

    def _added_pairs(self, left: Value, right: Value) -> Value:
        """Of each 16 bytes the lower and the upper half added: those of `left`, between them those of `right`."""
        count = left.type.count
        halves = [[4 * (i // 4) + i % 4 // 2 + i % 2 * count + place for i in range(count)] for place in (0, 2)]
        return self.add(*(self.shuffle(left, lanes, right) for lanes in halves))

    def transposed(self, vectors: Sequence[Value]) -> list[Value]:
        """As many vectors as each has lanes: lane i of vector k becomes lane k of vector i."""
        half = len(vectors) // 2
        for _ in range(half.bit_length()):
            pairs = list(zip(vectors[:half], vectors[half:], strict=True))
            orders = [[part * half + i // 2 + i % 2 * 2 * half for i in range(2 * half)] for part in (0, 1)]
            vectors = [self.shuffle(left, order, right) for left, right in pairs for order in orders]
        return list(vectors)

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

    def to_brain(self, floats: Value) -> Value:
        """f32 (scalar or vector) -> the nearest bf16, half to even, as i16 bits; NaN stays NaN."""
        kind = with_element(floats.type, I32)
        bits = self.cast(floats, kind)
        odd = self.band(self.shr(bits, 16), 1)
        rounded = self.shr(self.add(self.add(bits, self.constant(kind, 0x7FFF)), odd), 16)
        unordered = self.builder.fcmp_unordered("uno", floats, floats)
        return self.trunc(self.builder.select(unordered, self.constant(kind, 0x7FC0), rounded), I16)

    def dot_brains(self, total: Value, left: Value, right: Value) -> Value:
        """total + products of pairs of bf16 (each pair an i32 lane), the upper one's first; on CPUs that multiply them."""
        raise NotImplementedError

    def abs(self, floats: Value) -> Value:
        kind = with_element(floats.type, I32)
        return self.cast(self.band(self.cast(floats, kind), 0x7FFFFFFF), floats.type)

    def maximum(self, left: Value, right: Value) -> Value:
        return self.builder.select(self.builder.fcmp_ordered(">", left, right), left, right)

    def where_above(self, value: Value, bound: Value, chosen: Value) -> Value:
        """`chosen` where value > bound, 0 elsewhere."""
        return self.builder.select(self.builder.fcmp_ordered(">", value, bound), chosen, self.zero(chosen.type))

    def held(self, value: Value, until: Value) -> Value:
        """`value`, which stays in a register until `until` is there, where LLVM might rather spill it: a running sum that goes
        through memory waits longer for its loads than all else takes."""
        return value

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

    def walked(self, steps: Sequence[int], count: Value) -> list[tuple[Value, int, Value]]:
        """How to get over `count` things, some at a time (`steps`, falling, the last 1): first, how many, times."""
        walk, first = [], self.index(0)
        for some in steps:
            left = self.builder.sub(count, first)
            times = self.builder.udiv(left, self.index(some)) if some > 1 else left
            walk.append((first, some, times))
            first = self.builder.add(first, self.builder.mul(times, self.index(some)))
        return walk

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
    return {F32: 32, F64: 64}.get(element) or int(element.width)
