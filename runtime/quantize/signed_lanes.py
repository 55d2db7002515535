"""Searches for a signed scale, for sixteen groups at once: each lane does what ggml-quants.c make_qx_quants and
quantize_row_iq4_nl_impl do. `lanes.py` says why sixteen.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from numba import types
from numba.extending import intrinsic

from runtime.kernels.basics import Value
from runtime.kernels.emitter import Emitter
from runtime.kernels.tiers import emitter
from runtime.quantize.lanes import LANES
from runtime.quantize.thresholds import THRESHOLDS
from runtime.quants.iq4_nl import VALUES

_ROW = 4 * LANES  # bytes
_MAGIC = float(3 << 22)  # its ulp is 1: adding it rounds to an integer, ties to even
_TINY = 1e-15  # a group whose largest value is below this is all zeros


def _search(kind: type[Signed]) -> Any:
    """(tier, size, top, tries, x, weights, scales, inverses): scales of groups, and the factors from values to quants that go
    with them.

    `tier`, `size`, `top` (what the farthest value becomes) and `tries` (on each side of the plain scale) are literals; x and
    weights (size, 16), scales and inverses (16,) f32.
    """

    @intrinsic(prefer_literal=True)
    def search(context: Any, tier: Any, size: Any, top: Any, tries: Any, x: Any, weights: Any, scales: Any, inverses: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
            tier, *numbers = [literal.literal_value for literal in signature.args[:4]]
            e = emitter(tier, builder)
            kind(e, *numbers, *[e.pointer(address) for address in args[4:]]).emit()
            return target.get_dummy_value()

        return types.void(tier, size, top, tries, x, weights, scales, inverses), generate

    return search


@dataclasses.dataclass(frozen=True)
class Signed(abc.ABC):
    """value = scale * level, where a type says which levels there are.

    PLAIN_AGAIN: the plain scale is among those that are tried. Rounding can bring it back where it was left by a hair.
    """

    PLAIN_AGAIN: ClassVar[bool]

    e: Emitter
    size: int  # values of a group
    top: int
    tries: int
    x: Value
    weights: Value
    scales: Value
    inverses: Value

    @abc.abstractmethod
    def plain(self, value: Value) -> Value:
        """The factor that takes the value farthest from zero to the farthest level."""

    @abc.abstractmethod
    def other(self, step: Value, value: Value) -> Value:
        """The factor of a step (f32 in every lane, 0 is the plain one)."""

    @abc.abstractmethod
    def level(self, scaled: Value) -> Value:
        """The nearest level."""

    def emit(self) -> None:
        e, zero = self.e, self.splat(0.0)
        value = self._extreme()
        flat = e.builder.fcmp_ordered("<", e.abs(value), self.splat(_TINY))
        inverse = self.plain(value)
        qx, q2 = self._sums(inverse)
        scale = self.select(self.positive(q2), e.builder.fdiv(qx, q2), zero)

        def step(i: Value, carried: list[Value]) -> list[Value]:
            number = e.sub(e.builder.sitofp(i, e.F32), e.constant(e.F32, self.tries))
            inverse = self.other(e.splat(number, LANES), value)
            qx, q2 = self._sums(inverse)
            more = e.builder.fcmp_ordered(">", e.mul(qx, qx), e.mul(carried[0], q2))
            better = e.builder.and_(self.positive(q2), more)
            if not self.PLAIN_AGAIN:
                moved = e.builder.fcmp_ordered("!=", number, e.constant(e.F32, 0))
                better = e.builder.and_(better, e.splat(moved, LANES))
            scale = e.builder.fdiv(qx, q2)
            found = e.mul(scale, qx), scale, inverse
            return [self.select(better, new, old) for new, old in zip(found, carried, strict=True)]

        _, scale, inverse = e.loop(2 * self.tries + 1, [e.mul(scale, qx), scale, inverse], step)
        e.store(self.select(flat, zero, scale), self.scales, 0)
        e.store(self.select(flat, zero, inverse), self.inverses, 0)

    def _extreme(self) -> Value:
        """The value that is farthest from zero, with its sign; of several the first."""
        e = self.e
        size, value = self.splat(0.0), self.splat(0.0)
        for i in range(self.size):
            x = self._load(self.x, i)
            larger = e.builder.fcmp_ordered(">", e.abs(x), size)
            size, value = self.select(larger, e.abs(x), size), self.select(larger, x, value)
        return value

    def _sums(self, inverse: Value) -> tuple[Value, Value]:
        e = self.e
        qx = q2 = self.splat(0.0)
        for i in range(self.size):
            x, weight = self._load(self.x, i), self._load(self.weights, i)
            level = self.level(e.mul(inverse, x))
            qx = e.add(qx, self.moment(weight, x, level))
            q2 = e.add(q2, e.mul(e.mul(weight, level), level))
        return qx, q2

    def moment(self, weight: Value, x: Value, level: Value) -> Value:
        """weight x level, in the order in which C multiplies it."""
        return self.e.mul(self.e.mul(weight, level), x)

    # ------------------------------------------------------------ lanes

    def _load(self, array: Value, row: int) -> Value:
        return self.e.load(array, _ROW * row, self.e.floats(LANES))

    def splat(self, value: float) -> Value:
        return self.e.constant(self.e.floats(LANES), float(value))

    def select(self, mask: Value, yes: Value, no: Value) -> Value:
        return self.e.builder.select(mask, yes, no)

    def positive(self, value: Value) -> Value:
        return self.e.builder.fcmp_ordered(">", value, self.splat(0.0))


class Even(Signed):
    """Levels from -top to top - 1."""

    PLAIN_AGAIN = False

    def plain(self, value: Value) -> Value:
        return self.e.builder.fdiv(self.splat(-self.top), value)

    def other(self, step: Value, value: Value) -> Value:
        e = self.e
        return e.builder.fdiv(e.negative(e.add(self.splat(self.top), e.mul(step, 0.1))), value)

    def level(self, scaled: Value) -> Value:
        e, integers = self.e, self.e.vector(self.e.I32, LANES)
        bits = e.cast(e.add(scaled, self.splat(_MAGIC)), integers)
        level = e.sub(e.band(bits, 0x7FFFFF), e.constant(integers, 0x400000))
        for sign, bound in (("<", self.top - 1), (">", -self.top)):
            limit = e.constant(integers, bound)
            level = self.select(e.builder.icmp_signed(sign, level, limit), level, limit)
        return e.float(level)

    def moment(self, weight: Value, x: Value, level: Value) -> Value:
        return self.e.mul(self.e.mul(weight, x), level)


class Uneven(Signed):
    """The 16 levels of IQ4_NL, the first of which is -top."""

    PLAIN_AGAIN = True

    def plain(self, value: Value) -> Value:
        e = self.e
        return e.builder.fdiv(self.splat(1.0), e.builder.fdiv(e.negative(value), self.splat(-self.top)))

    def other(self, step: Value, value: Value) -> Value:
        return self.e.builder.fdiv(self.e.add(step, self.splat(-self.top)), value)

    def level(self, scaled: Value) -> Value:
        level = self.splat(VALUES[0])
        for value, threshold in zip(VALUES[1:], THRESHOLDS, strict=True):
            level = self.select(self.e.builder.fcmp_unordered(">=", scaled, self.splat(threshold)), self.splat(value), level)
        return level


even_scales: Callable[..., None] = _search(Even)
uneven_scales: Callable[..., None] = _search(Uneven)
