"""The search for scale and minimum, for sixteen groups at once: each lane does what ggml-quants.c make_qkx2_quants does, or
make_qkx3_quants.

A sum of 32 products in llama.cpp's order is 32 additions that wait for each other; sixteen groups side by side fill the time.
No operation of a lane is another one than in C, so the bytes are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from runtime.kernels import jit
from runtime.kernels.basics import Value
from runtime.kernels.emitter import Emitter
from runtime.kernels.tiers import emitter

LANES = 16
TIER = jit.TIER.name
_ROW = 4 * LANES  # bytes
_MAGIC = float(3 << 22)  # its ulp is 1: adding it rounds to an integer, ties to even


@intrinsic(prefer_literal=True)
def scale_and_min(
    context: Any,
    tier: Any,
    size: Any,
    top: Any,
    first: Any,
    step: Any,
    steps: Any,
    absolute: Any,
    x: Any,
    weights: Any,
    quants: Any,
    out: Any,
) -> Any:
    """Scales and minimums of groups with value = scale * quant - min and quants from 0 to `top`, with the least error.

    Tries top + first + i * step quants over the span, for i from 0 to `steps`, each with the scale and minimum that fit its
    quants best; `first` and `step` in hundredths. All but the addresses are literals. `x`, `weights` (size, 16) f32; `quants`
    (2 size, 16) f32, the quants and after them scratch; `out` (2, 16) f32: scales, minimums.
    """
    signature = types.void(tier, size, top, first, step, steps, absolute, x, weights, quants, out)

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        tier, *numbers = [kind.literal_value for kind in signature.args[:7]]
        e = emitter(tier, builder)
        _Search(e, *numbers, *[e.pointer(address) for address in args[7:]]).emit()
        return target.get_dummy_value()

    return signature, generate


@dataclasses.dataclass(frozen=True)
class _Search:
    e: Emitter
    size: int  # values of a group
    top: int
    first: int  # hundredths
    step: int  # hundredths
    steps: int
    absolute: bool  # errors count by their size, else by their square
    x: Value
    weights: Value
    quants: Value
    out: Value

    def emit(self) -> None:
        e = self.e
        low, high, sum_w, sum_x = self._span()
        flat = e.builder.fcmp_ordered("==", high, low)
        inverse = e.builder.fdiv(self._splat(self.top), e.sub(high, low))
        scale = e.builder.fdiv(self._splat(1.0), inverse)
        self._round(0, inverse, low)
        best = self._error(0, scale, low)

        def attempt(i: Value, carried: list[Value]) -> list[Value]:
            return self._attempt(i, carried, high, sum_w, sum_x)

        best, scale, low = e.loop(self.steps + 1, [best, scale, low], attempt)
        for i in range(self.size):
            self._store(self._select(flat, self._splat(0.0), self._load(self.quants, i)), i)
        e.store(self._select(flat, self._splat(0.0), scale), self.out, 0)
        e.store(e.negative(low), self.out, _ROW)

    # ------------------------------------------------------------ steps

    def _span(self) -> tuple[Value, Value, Value, Value]:
        """Lowest value, but at most 0; highest; the sums of the weights and of the weighted values."""
        e = self.e
        low = high = self._load(self.x, 0)
        sum_w = self._load(self.weights, 0)
        sum_x = e.mul(sum_w, low)
        for i in range(1, self.size):
            value, weight = self._load(self.x, i), self._load(self.weights, i)
            low = self._select(e.builder.fcmp_ordered("<", value, low), value, low)
            high = self._select(e.builder.fcmp_ordered(">", value, high), value, high)
            sum_w, sum_x = e.add(sum_w, weight), e.add(sum_x, e.mul(weight, value))
        zero = self._splat(0.0)
        return self._select(e.builder.fcmp_ordered(">", low, zero), zero, low), high, sum_w, sum_x

    def _attempt(self, i: Value, carried: list[Value], high: Value, sum_w: Value, sum_x: Value) -> list[Value]:
        """Another scale: what is best, its scale and its minimum, afterwards."""
        e, (best, scale, low) = self.e, carried
        number = e.builder.sitofp(i, e.F32)
        tries = e.add(e.add(e.constant(e.F32, self.first / 100), e.mul(number, self.step / 100)), e.constant(e.F32, self.top))
        inverse = e.builder.fdiv(e.splat(tries, LANES), e.sub(high, low))
        sums: list[Value] = [self._splat(0.0)] * 3
        self._round(self.size, inverse, low, lambda i, quant: self._add(sums, i, quant))
        sum_l, sum_l2, sum_xl = sums
        determinant = e.sub(e.mul(sum_w, sum_l2), e.mul(sum_l, sum_l))
        fit = e.builder.fdiv(e.sub(e.mul(sum_w, sum_xl), e.mul(sum_x, sum_l)), determinant)
        fit_low = e.builder.fdiv(e.sub(e.mul(sum_l2, sum_x), e.mul(sum_l, sum_xl)), determinant)
        above = e.builder.fcmp_ordered(">", fit_low, self._splat(0.0))
        fit = self._select(above, e.builder.fdiv(sum_xl, sum_l2), fit)
        fit_low = self._select(above, self._splat(0.0), fit_low)
        error = self._error(self.size, fit, fit_low)
        better = e.builder.and_(
            e.builder.fcmp_ordered(">", determinant, self._splat(0.0)), e.builder.fcmp_ordered("<", error, best)
        )
        for row in range(self.size):
            trial = self._load(self.quants, self.size + row)
            self._store(self._select(better, trial, self._load(self.quants, row)), row)
        return [self._select(better, new, old) for new, old in ((error, best), (fit, scale), (fit_low, low))]

    def _add(self, sums: list[Value], i: int, quant: Value) -> None:
        e = self.e
        product = e.mul(self._load(self.weights, i), quant)
        terms = product, e.mul(product, quant), e.mul(product, self._load(self.x, i))
        sums[:] = [e.add(total, term) for total, term in zip(sums, terms, strict=True)]

    def _round(self, row: int, inverse: Value, low: Value, use: Callable[[int, Value], None] = lambda i, quant: None) -> None:
        """Quants of the values, stored from `row` on."""
        e, integers = self.e, self.e.vector(self.e.I32, LANES)
        for i in range(self.size):
            scaled = e.mul(inverse, e.sub(self._load(self.x, i), low))
            bits = e.cast(e.add(scaled, self._splat(_MAGIC)), integers)
            quant = e.sub(e.band(bits, 0x7FFFFF), e.constant(integers, 0x400000))
            for sign, bound in (("<", self.top), (">", 0)):
                limit = e.constant(integers, bound)
                quant = self._select(e.builder.icmp_signed(sign, quant, limit), quant, limit)
            value = e.float(quant)
            self._store(value, row + i)
            use(i, value)

    def _error(self, row: int, scale: Value, low: Value) -> Value:
        """Of the quants that begin at `row`."""
        e, total = self.e, self._splat(0.0)
        for i in range(self.size):
            diff = e.sub(e.add(e.mul(scale, self._load(self.quants, row + i)), low), self._load(self.x, i))
            size = e.abs(diff) if self.absolute else e.mul(diff, diff)
            total = e.add(total, e.mul(self._load(self.weights, i), size))
        return total

    # ------------------------------------------------------------ rows of lanes

    def _load(self, array: Value, row: int) -> Value:
        return self.e.load(array, _ROW * row, self.e.floats(LANES))

    def _store(self, value: Value, row: int) -> None:
        self.e.store(value, self.quants, _ROW * row)

    def _splat(self, value: float) -> Value:
        return self.e.constant(self.e.floats(LANES), float(value))

    def _select(self, mask: Value, yes: Value, no: Value) -> Value:
        return self.e.builder.select(mask, yes, no)
