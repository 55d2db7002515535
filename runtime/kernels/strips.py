"""SIMD primitives for strips (see `runtime.quants.strips`): a lane of 32 bits for each row of a strip.

A register of weights holds four consecutive values of each row, and meets the same four inputs in every lane.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterable, Sequence

from llvmlite import ir

from runtime.kernels.basics import CACHE_LINE, I8, I16, I32, Value
from runtime.kernels.emitter import Emitter

NONE = 0x80  # in the control of a byte shuffle: a zero
Wait = Callable[[Value], None]


class StripEmitter(Emitter):
    """By sums of two products in i16, as AVX2 has them."""

    signed_offset = 0
    """What has to be added to signed weights before `strip_dot_signed`."""
    scales_are_pairs = True
    """Whether a scale of `strip_dot` is an operand of `strip_madd` too, so that `strip_scales` makes two of one."""

    @abc.abstractmethod
    def _maddubs(self, unsigned: Value, signed: Value) -> Value: ...

    @abc.abstractmethod
    def _madd16(self, left: Value, right: Value) -> Value: ...

    @abc.abstractmethod
    def _magnitude(self, value: Value) -> Value: ...

    @abc.abstractmethod
    def _signed_by(self, value: Value, signs: Value) -> Value: ...

    def strip_pairs(self, scales: Value, first: int, second: int, *, signed: bool = False) -> Value:
        """Two of each row's four bytes as i16: an operand of `strip_madd`."""
        places = (NONE, first, NONE, second) if signed else (first, NONE, second, NONE)
        pairs = self.cast(self._pick(scales, places), ir.VectorType(I16, 2 * self.lanes))
        return self.sar(pairs, 8) if signed else pairs

    def strip_scale(self, scales: Value, index: int, *, signed: bool = False) -> Value:
        """One of each row's four bytes, as `strip_dot` takes it."""
        return self.strip_pairs(scales, index, index, signed=signed)

    def strip_scales(self, scales: Value, first: int) -> tuple[Value, Value, Value]:
        """Two of each row's four signed bytes, from `first` on: both for `strip_madd`, and each for `strip_dot`."""
        pairs = self.strip_pairs(scales, first, first + 1, signed=True)
        wide = self.cast(pairs, self.bytes(4 * self.lanes))
        one, other = (self.cast(self._pick(wide, 2 * places), pairs.type) for places in ((0, 1), (2, 3)))
        return pairs, one, other

    def strip_madd(self, total: Value, pairs: Value, x: Value, offset: int) -> Value:
        """total + the products of i16 pairs and the two i16 at `offset` of x."""
        return self.add(total, self._madd16(pairs, self.cast(self._inputs(x, offset), pairs.type)))

    def strip_dot(
        self, totals: Sequence[Value], weights: Iterable[Value], xs: list[Value], offsets: Sequence[int], scale: Value,
        largest: int, wait: Wait,
    ) -> list[Value]:  # fmt: skip
        """For each column: total + scale * (u8 weights x the s8 inputs at `offsets`, four a register).

        weights <= largest and |inputs| <= 127. `weights` may be a generator, which loads them when their turn comes, and
        `wait` is told of a value that later loads have to wait for: more at a time than registers hold would only be spilled.
        """
        fit = max(1, 32767 // (2 * 127 * largest))  # sums of two products that fit i16 together
        registers, results = self._unpacked(weights, len(xs), wait), []
        for c, total in enumerate(totals):
            for first in range(0, len(registers), fit):
                part = zip(registers[first : first + fit], offsets[first : first + fit], strict=True)
                products = [self._maddubs(u, self._inputs(xs[c], offset)) for u, offset in part]
                total = self.add(total, self._madd16(functools.reduce(self.add, products), scale))
            results.append(self._finished(xs, c, total))
        return self._ended(results, wait)

    def strip_dot_signed(
        self, totals: Sequence[Value], weights: Iterable[Value], xs: list[Value], offsets: Sequence[int], scale: Value,
        wait: Wait,
    ) -> list[Value]:  # fmt: skip
        """As `strip_dot`, with signed weights, to which `signed_offset` was added."""
        registers, results = list(weights), []
        magnitudes = [self._magnitude(w) for w in registers]
        for c, total in enumerate(totals):
            for w, magnitude, offset in zip(registers, magnitudes, offsets, strict=True):
                pairs = self._maddubs(magnitude, self._signed_by(self._inputs(xs[c], offset), w))
                total = self.add(total, self._madd16(pairs, scale))
            results.append(self._finished(xs, c, total))
        return self._ended(results, wait)

    def _unpacked(self, weights: Iterable[Value], columns: int, wait: Wait) -> list[Value]:
        """All weights; for one column two at a time, for which there is nothing to wait."""
        registers = []
        for number, register in enumerate(weights, 1):
            registers.append(register)
            if columns == 1 and number % 2 == 0:
                wait(register)
        return registers

    def _finished(self, xs: list[Value], column: int, total: Value) -> Value:
        """The total, before the next column starts: where registers are few, only one column's sums lie beside the weights."""
        if self.registers == 16 and column + 1 < len(xs):
            xs[column + 1] = self.after(xs[column + 1], total)
        return total

    @staticmethod
    def _ended(results: list[Value], wait: Wait) -> list[Value]:
        """The results; later loads wait for the last of them. There is none where weights are only taken apart."""
        for last in results[-1:]:
            wait(last)
        return results

    def strip_bytes(self, value: Value, places: Sequence[int]) -> Value:
        """Each row's four bytes in another order."""
        return self._pick(value, places)

    def strip_twice(self, value: Value, first: int) -> Value:
        """Two of each row's bytes, each twice."""
        return self._pick(value, (first, first, first + 1, first + 1))

    def strip_ones(self, times: int = 1) -> Value:
        """The scale of sums that have none, or the same for all rows."""
        return self.constant(ir.VectorType(I16, 2 * self.lanes), times)

    def splat_i32(self, x: Value, offset: int) -> Value:
        """The i32 at `offset` of x in every lane."""
        return self.load_splat(x, offset, I32, self.lanes)

    def after(self, pointer: Value, value: Value) -> Value:
        """`pointer`, but not before `value` is there. What is loaded from it is loaded anew, and LLVM does not start
        everything at once, for which there are no registers; no instruction comes of it."""
        return self._tied("", "=r,0,v", pointer, value)

    def after_asking(self, pointer: Value, ahead: Value, lines: Iterable[int]) -> Value:
        """`pointer`, but not before cache lines from `ahead` on are asked for: LLVM takes requests of its own (`prefetch`) to the
        end of long code, where they wait for one another. The jump is for CPUs that, once they lack a decoded instruction,
        decode until they jump: thousands of instructions in a row would be decoded anew for each block."""
        text = [f"prefetcht0 {CACHE_LINE * line}($2)" for line in lines]
        return self._tied("\n".join([*text, "jmp 1f", "1:"]), "=r,0,r", pointer, ahead)

    def _tied(self, text: str, constraints: str, pointer: Value, other: Value) -> Value:
        kind = ir.FunctionType(pointer.type, [pointer.type, other.type])
        tied = self.builder.asm(kind, text, constraints, [pointer, other], side_effect=False)
        tied.attributes.add("readnone")
        tied.attributes.add("nounwind")
        return tied

    def keep_order(self) -> None:
        """Let LLVM move nothing that reads memory, or asks for it, from before this to after it or the other way; no instruction
        comes of it."""
        self.builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], side_effect=True)

    def _inputs(self, x: Value, offset: int) -> Value:
        """Four inputs in every lane."""
        return self.cast(self.splat_i32(x, offset), self.bytes(4 * self.lanes))

    def _pick(self, value: Value, places: Sequence[int]) -> Value:
        """Each row's four bytes in another order, by `vpshufb`."""
        control = [place if place == NONE else 4 * row + place for row in range(4) for place in places]
        name = {32: "avx2.pshuf.b", 64: "avx512.pshuf.b.512"}[self.register]
        constant = ir.Constant(value.type, [I8(place) for place in control] * (self.register // 16))
        return self.call(f"llvm.x86.{name}", value.type, value, constant)


class VnniStripEmitter(StripEmitter):
    """By `vpdpbusd`, whose sums of four products are i32."""

    signed_offset = 128
    scales_are_pairs = False

    @abc.abstractmethod
    def _dpbusd(self, start: Value, unsigned: Value, signed: Value) -> Value: ...

    @abc.abstractmethod
    def _dpwssd(self, start: Value, left: Value, right: Value) -> Value: ...

    def strip_scale(self, scales: Value, index: int, *, signed: bool = False) -> Value:
        places = (NONE, NONE, NONE, index) if signed else (index, NONE, NONE, NONE)
        wide = self.cast(self._pick(scales, places), ir.VectorType(I32, self.lanes))
        return self.sar(wide, 24) if signed else wide

    def strip_madd(self, total: Value, pairs: Value, x: Value, offset: int) -> Value:
        return self._dpwssd(total, pairs, self.splat_i32(x, offset))

    def strip_dot(
        self, totals: Sequence[Value], weights: Iterable[Value], xs: list[Value], offsets: Sequence[int], scale: Value,
        largest: int, wait: Wait,
    ) -> list[Value]:  # fmt: skip
        registers, results = list(weights), []
        for c, total in enumerate(totals):
            products = total if scale is None else self.zero(total.type)
            for u, offset in zip(registers, offsets, strict=True):
                products = self._dpbusd(products, u, self._inputs(xs[c], offset))
            total = products if scale is None else self.add(total, self.mul(products, scale))
            results.append(self._finished(xs, c, total))
        return self._ended(results, wait)

    def strip_dot_signed(
        self, totals: Sequence[Value], weights: Iterable[Value], xs: list[Value], offsets: Sequence[int], scale: Value,
        wait: Wait,
    ) -> list[Value]:  # fmt: skip
        return self.strip_dot(totals, weights, xs, offsets, scale, 255, wait)

    def strip_ones(self, times: int = 1) -> Value:
        assert times == 1
        return None
