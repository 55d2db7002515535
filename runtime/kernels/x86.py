"""SIMD primitives of the x86 tiers: what AVX2, AVX-VNNI and AVX-512 do better than plain LLVM IR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import llvmlite.binding
from llvmlite import ir

from runtime.kernels.basics import F16, F32, F64, I1, I8, I16, I32, Operand, Type, Value, bits_of, with_element
from runtime.kernels.emitter import Emitter
from runtime.kernels.strips import StripEmitter, VnniStripEmitter

_BYTE_VNNI_TAKES_BYTES = llvmlite.binding.llvm_version_info >= (22, 0, 0)  # before: <n x i32> operands


class Avx2(StripEmitter):
    """AVX2, FMA and F16C: 32-byte registers, `vpmaddubsw` (which saturates: u * s * 2 must fit i16) and `vpmaddwd`."""

    tier = "avx2"
    register = 32

    def fma(self, left: Value, right: Value, addend: Value) -> Value:
        kind = left.type
        name = f"llvm.fma.v{kind.count}f32" if isinstance(kind, ir.VectorType) else "llvm.fma.f32"
        return self.call(name, kind, left, right, addend)

    def half(self, bits: Value) -> Value:
        return self.builder.fpext(self.cast(bits, with_element(bits.type, F16)), with_element(bits.type, F32))

    def load_half(self, pointer: Value, offset: int, count: int) -> Value:
        return self.half(self.load_splat(pointer, offset, I16, count))

    def sign_masks(self, eights: Value) -> Iterator[Value]:
        """As bytes that are negative, or positive, for `vpsignb`."""
        return (self._sign_bytes(octets) for octets in self.octets(eights))

    def bits(self, integer: Value) -> Value:
        eights = self.cast(integer, self.bytes(integer.type.width // 8))
        return self._sign_bytes(self.shuffle(eights, [i // 8 for i in range(integer.type.width)]))

    def _sign_bytes(self, octets: Value) -> Value:
        """Bit i % 8 of byte i, added to what makes it the sign of a byte that is not zero otherwise."""
        bits = self.band(octets, self.constant(octets.type, [1 << i % 8 for i in range(octets.type.count)]))
        rest = [0x80 - (1 << i % 8) if i % 8 < 7 else 1 for i in range(octets.type.count)]
        return self.add(bits, self.constant(octets.type, rest))

    def flipped(self, values: Value, negative: Value) -> Value:
        return self._by_register(self._signed_by, values, negative)

    def madd16(self, left: Value, right: Value) -> Value:
        if left.type.count < 8:  # no instruction takes so few
            return super().madd16(left, right)
        return self._by_register(self._madd16, left, right)

    def _madd16(self, left: Value, right: Value) -> Value:
        name = {8: "sse2.pmadd.wd", 16: "avx2.pmadd.wd", 32: "avx512.pmaddw.d.512"}[left.type.count]
        return self.call(f"llvm.x86.{name}", ir.VectorType(I32, left.type.count // 2), left, right)

    def _maddubs(self, unsigned: Value, signed: Value) -> Value:
        """u8 x s8, neighbours added to i16 with saturation."""
        assert unsigned.type.count == 32
        return self.call("llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(I16, 16), unsigned, signed)

    def dot(self, start: Value, unsigned: Value, signed: Value) -> Value:
        pairs = self._by_register(self._maddubs, unsigned, signed)
        return self.add(start, self.madd16(pairs, self.constant(pairs.type, 1)))

    def dot_signed(self, weights: Value, signed: Value, bias: Value) -> Value:
        # |w| x (sign of w) x; |-128| is 128 as an unsigned byte, and 2 * 128 * 127 fits i16
        flipped = self.call("llvm.x86.avx2.psign.b", signed.type, signed, weights)
        return self.dot(self.zero(ir.VectorType(I32, 8)), self._magnitude(weights), flipped)

    def lane_scales(self, scales: Value, order: Sequence[int], *, signed: bool) -> list[Operand]:
        return self._spread(self._scale_tables(scales, order, signed=signed))

    def pair_scales(self, pairs: Value) -> list[Operand]:
        words, r = self.cast(pairs, ir.VectorType(I32, 8)), self.register // 16
        places = [[(first + r * slot + lane) // 2 for lane in range(r) for slot in range(4)] for first in range(0, 16, 4 * r)]
        return self._spread([self._opaque(self.shuffle(words, placed)) for placed in places])

    def _spread(self, tables: Sequence[Value]) -> list[Operand]:
        """The operands of `dot_scaled` from tables that `_scale_tables` describes."""
        spread = [self._dwords(table, [slot] * 4) for table in tables for slot in range(4)]
        return [tuple(spread[: len(spread) // 2]), tuple(spread[len(spread) // 2 :])]

    def _scale_tables(self, scales: Value, order: Sequence[int], *, signed: bool) -> list[Value]:
        """Scales as i16 pairs (s, s), so placed that one `vpshufd` makes an operand of `dot_scaled`.

        A register has R lanes of 16 bytes; the R scales of register k's lanes stand at dword k % 4 of those lanes in
        table k // 4. Hidden from LLVM, which would turn each operand into two general shuffles.
        """
        r = self.register // 16
        tables = []
        for first in range(0, 16, 4 * r):
            placed = [order[first + r * slot + lane] for lane in range(r) for slot in range(4) for _ in (0, 1)]
            picked = self.shuffle(scales, placed)
            pairs = self.sext(picked, I16) if signed else self.zext(picked, I16)
            tables.append(self._opaque(self.cast(pairs, ir.VectorType(I32, self.lanes))))
        return tables

    def _dwords(self, table: Value, slots: Sequence[int]) -> Value:
        """`vpshufd`: the dwords `slots` of each 16-byte lane, as i16."""
        lanes = [4 * lane + slot for lane in range(self.register // 16) for slot in slots]
        return self.cast(self.shuffle(table, lanes), ir.VectorType(I16, 2 * self.lanes))

    def _opaque(self, value: Value) -> Value:
        """The same value, of which LLVM knows nothing: an empty piece of assembly."""
        return self._after(value, [])

    def _after(self, value: Value, others: Sequence[Value]) -> Value:
        """`value`, but not before `others` are there: LLVM otherwise starts everything at once and runs out of registers.

        No instruction comes of it, so the CPU does not wait.
        """
        kind = ir.FunctionType(value.type, [value.type, *(other.type for other in others)])
        tied = self.builder.asm(kind, "", ",".join(["=v", "0", *["v"] * len(others)]), [value, *others], side_effect=False)
        tied.attributes.add("readnone")
        tied.attributes.add("nounwind")
        return tied

    def held(self, value: Value, until: Value) -> Value:
        return self._after(value, [until]) if self.registers == 16 else value

    def dot_scaled(self, totals: Sequence[Value], weights: Sequence[Value], inputs: Sequence[Sequence[Value]], scales: Operand
                   ) -> list[Value]:  # fmt: skip
        columns = [self._registers(vectors) for vectors in inputs]
        sums = list(totals)
        for k, (u, scale) in enumerate(zip(self._registers(weights), scales, strict=True)):
            u, scale = self._after(u, sums), self._after(scale, sums)
            sums = [
                self.add(total, self._madd16(self._maddubs(u, column[k]), scale))
                for total, column in zip(sums, columns, strict=True)
            ]
        return sums

    def dot_bytes(
        self, totals: Sequence[Value], weights: Sequence[Value], inputs: Sequence[Sequence[Value]], scales: Operand, largest: int
    ) -> list[Value]:
        columns = [self._registers(vectors) for vectors in inputs]
        sums = list(totals)
        for k, (w, scale) in enumerate(zip(self._registers(weights), scales, strict=True)):
            w, scale = self._after(w, sums), self._after(scale, sums)
            magnitude = self._magnitude(w)
            sums = [
                self.add(total, self._madd16(self._maddubs(magnitude, self._signed_by(column[k], w)), scale))
                for total, column in zip(sums, columns, strict=True)
            ]
        return sums

    def _magnitude(self, value: Value) -> Value:
        return self.call(f"llvm.abs.v{value.type.count}i8", value.type, value, I1(0))

    def _signed_by(self, value: Value, signs: Value) -> Value:
        """Bytes of `value`, negated where `signs` is negative; of no interest where it is zero."""
        return self.call("llvm.x86.avx2.psign.b", value.type, value, signs)

    def octets(self, values: Value) -> Iterator[Value]:
        # each half in all 16-byte lanes first, which LLVM would not do, and then one shuffle within lanes for each register
        size = self.register
        halves = [self._opaque(self.shuffle(values, [*range(first, first + 16)] * (size // 16))) for first in (0, 16)]
        for quarter in range(4):
            firsts = range(8 * (quarter % 2), 8 * (quarter % 2) + 8, size // 8)
            parts = [self.shuffle(halves[quarter // 2], [first + i // 8 + i // 16 * 16 for i in range(size)]) for first in firsts]
            yield parts[0] if len(parts) == 1 else self.concat(*parts)

    def gather(self, table: Value, element: Type, indices: Sequence[Value]) -> Value:
        """Most entries in all lanes of a register, which loads do by themselves, and then chosen, so that shuffles are few."""
        if self.register == 64 and element.width == 32:  # sixteen choices one after the other take too long
            return super().gather(table, element, indices)
        lanes = 8 * self.register // element.width
        parts = [self._gathered(table, element, indices[first : first + lanes]) for first in range(0, len(indices), lanes)]
        while len(parts) > 1:
            parts = [self.concat(*two) for two in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def _gathered(self, table: Value, element: Type, indices: Sequence[Value]) -> Value:
        """A register of entries."""
        count, paired = len(indices), 2 if element.width == 64 and self.register == 32 else 1
        if paired == 2:
            low = self.cast(super().gather(table, F64, indices[:2]), ir.VectorType(element, 2))
            vector = self.shuffle(low, range(count))
        else:
            vector = self._everywhere(table, element, indices[0], count)
        for lane in range(paired, count):
            vector = self._with_rest(vector, self._everywhere(table, element, indices[lane], count), lane)
        return vector

    def _everywhere(self, table: Value, element: Type, index: Value, count: int) -> Value:
        entry = self.load(table, self.builder.mul(index, self.index(element.width // 8)), element)
        return self._opaque(self.splat(entry, count))

    def _with_rest(self, vector: Value, other: Value, first: int) -> Value:
        """`vector` with the lanes from `first` on of `other`."""
        count = vector.type.count
        return self.shuffle(vector, [*range(first), *range(count + first, 2 * count)], other)

    def anew(self, pointer: Value) -> Value:
        kind = ir.FunctionType(pointer.type, [pointer.type])
        tied = self.builder.asm(kind, "", "=r,0", [pointer], side_effect=False)
        tied.attributes.add("readnone")
        tied.attributes.add("nounwind")
        return tied

    def lookup(self, table: Sequence[int], indices: Value) -> Value:
        return self._by_register(lambda piece: self._lookup(table, piece), indices)

    def _lookup(self, table: Sequence[int], indices: Value) -> Value:
        count = indices.type.count
        name = {16: "ssse3.pshuf.b.128", 32: "avx2.pshuf.b", 64: "avx512.pshuf.b.512"}[count]
        return self.call(f"llvm.x86.{name}", indices.type, self.constant(indices.type, list(table) * (count // 16)), indices)


class AvxVnni(VnniStripEmitter, Avx2):
    """AVX2 with the VEX-coded `vpdpbusd` and `vpdpwssd`."""

    tier = "avxvnni"
    adds_words = True

    def _vnni(self, name: str, element: Type, start: Value, left: Value, right: Value) -> Value:
        bits = 32 * start.type.count
        kind = ir.VectorType(element, bits // bits_of(element)) if _BYTE_VNNI_TAKES_BYTES else start.type
        return self.call(f"llvm.x86.avx512.{name}.{bits}", start.type, start, self.cast(left, kind), self.cast(right, kind))

    def _dpbusd(self, start: Value, unsigned: Value, signed: Value) -> Value:
        return self._vnni("vpdpbusd", I8, start, unsigned, signed)

    def _dpwssd(self, start: Value, left: Value, right: Value) -> Value:
        return self._vnni("vpdpwssd", I16, start, left, right)

    def dot_words(self, total: Value, left: Value, right: Value) -> Value:
        return super().dot_words(total, left, right) if total.type.count == 1 else self._dpwssd(total, left, right)

    def dot(self, start: Value, unsigned: Value, signed: Value) -> Value:
        return self._by_register(self._dpbusd, start, unsigned, signed)

    def dot_signed(self, weights: Value, signed: Value, bias: Value) -> Value:
        # (w + 128) as an unsigned byte, and the sum that starts at -128 times the other side's sum
        return self.dot(self.first_lane(bias, 8), self.xor(weights, 0x80), signed)

    def _spread(self, tables: Sequence[Value]) -> list[Operand]:
        spread = [self._dwords(table, [slot, slot, slot + 1, slot + 1]) for table in tables for slot in (0, 2)]
        return [tuple(spread[: len(spread) // 2]), tuple(spread[len(spread) // 2 :])]

    def dot_scaled(self, totals: Sequence[Value], weights: Sequence[Value], inputs: Sequence[Sequence[Value]], scales: Operand
                   ) -> list[Value]:  # fmt: skip
        registers = self._registers(weights)
        columns = [self._registers(vectors) for vectors in inputs]
        sums, zero = list(totals), self.zero(totals[0].type)
        for k, scale in enumerate(scales):
            for c, column in enumerate(columns):
                low, high = (self._dpbusd(zero, registers[i], column[i]) for i in (2 * k, 2 * k + 1))
                sums[c] = self._dpwssd(sums[c], self._pack(low, high), scale)  # four products fit i16
        return sums

    def byte_scales(self, scales: Value, largest: int) -> list[Operand]:
        if largest <= 63:
            return super().byte_scales(scales, largest)
        spread = []
        for first in range(0, 16, self.lanes // 4):
            lanes = self.shuffle(scales, [first + lane // 4 for lane in range(self.lanes)])
            spread.append(self.sext(lanes, I32))
        return [tuple(spread[: len(spread) // 2]), tuple(spread[len(spread) // 2 :])]

    def dot_bytes(
        self, totals: Sequence[Value], weights: Sequence[Value], inputs: Sequence[Sequence[Value]], scales: Operand, largest: int
    ) -> list[Value]:
        signs = self._registers(weights)
        magnitudes = [self._magnitude(w) for w in signs]
        columns = [[self._signed_by(x, w) for x, w in zip(self._registers(vectors), signs, strict=True)] for vectors in inputs]
        if largest <= 63:
            return self.dot_scaled(totals, magnitudes, columns, scales)
        sums, zero = list(totals), self.zero(totals[0].type)
        for k, scale in enumerate(scales):  # four products do not fit i16, so the scales multiply i32
            for c, column in enumerate(columns):
                sums[c] = self.add(sums[c], self.mul(self._dpbusd(zero, magnitudes[k], column[k]), scale))
        return sums

    def _pack(self, low: Value, high: Value) -> Value:
        """Two registers of i32 -> one of i16, 16-byte lane by lane."""
        name = "avx2.packssdw" if self.register == 32 else "avx512.packssdw.512"
        return self.call(f"llvm.x86.{name}", ir.VectorType(I16, 2 * self.lanes), low, high)


class Avx512(AvxVnni):
    """AVX-512 F, BW, DQ, VL and VNNI: 64-byte registers."""

    tier = "avx512"
    register = 64
    registers = 32
    sign_masks, bits = Emitter.sign_masks, Emitter.bits

    def flipped(self, values: Value, negative: Value) -> Value:
        return self.builder.select(negative, self.sub(self.zero(values.type), values), values)

    def _signed_by(self, value: Value, signs: Value) -> Value:
        negative = self.builder.icmp_signed("<", signs, self.zero(signs.type))
        return self.builder.select(negative, self.sub(self.zero(value.type), value), value)
