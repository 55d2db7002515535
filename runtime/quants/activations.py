"""Activation formats: how a float row is packed for the other side of the dot products.

All work on consecutive blocks and never look beyond one, so rows may be packed in any order and by any thread.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter

Value = Any  # an LLVM value
TINY = 2.0**-100  # a block whose largest magnitude is below this packs to zeros: 127 / it would overflow
ROUND = 1.5 * 2.0**23  # adding it rounds a float of magnitude < 2^22 to an integer, half to even, in its low bits
ROUND_BITS = 0x4B400000


class Activation(abc.ABC):
    """A packed activation format."""

    name: str
    block_size: int
    block_bytes: int
    together: int = 1  # blocks that `emit_quantize` takes at a time, or one

    def row_bytes(self, n: int) -> int:
        """Bytes of `n` packed values; `n` is a multiple of `block_size`."""
        assert n % self.block_size == 0, (self.name, n)
        return n // self.block_size * self.block_bytes

    @abc.abstractmethod
    def emit_quantize(self, e: Emitter, x: Value, out: Value, count: int) -> None:
        """Pack `count` blocks of f32 at `x` into `out`."""


class Q8K(Activation):
    """256 values in 320 bytes: i8[256] @0, f32 d @256, i16[8] @272 and i16[16] @288 minus the sums of 32 and of 16 values each
    (mins are subtracted, so are the 32s of Q6_K); the rest is not read.

    d = max|x| / 127 and q = x * (127 / max|x|) rounded half to even, so |q| <= 127 (`vpmaddubsw` relies on it).
    """

    name = "q8_k"
    block_size = 256
    block_bytes = 320
    SCALE = 256  # byte offsets
    PAIRS = 272
    SUMS = 288

    def emit_quantize(self, e: Emitter, x: Value, out: Value, count: int) -> None:
        scale, inverse = _scales(e, x, 256)
        e.store(scale, out, self.SCALE)

        def pair(i: Value, _: list[Value]) -> list[Value]:
            totals = []
            for half in (0, 1):
                group = e.builder.add(e.builder.mul(i, e.index(2)), e.index(half))
                quants = _round16(e, e.load(x, e.builder.mul(group, e.index(64)), e.floats(16)), inverse)
                e.store(e.trunc(quants, e.I8), out, e.builder.mul(group, e.index(16)))
                totals.append(e.trunc(e.mul(e.sum(quants), -1), e.I16))
                e.store(totals[-1], out, e.builder.add(e.index(self.SUMS), e.builder.mul(group, e.index(2))))
            e.store(e.add(*totals), out, e.builder.add(e.index(self.PAIRS), e.builder.mul(i, e.index(2))))
            return []

        e.loop(8, [], pair)


class Q80(Activation):
    """32 values in 40 bytes: i8[32] @0, f32 d @32, i32 @36: -128 times the sum of the i8.

    That multiple is where a sum of (weight + 128) * x has to start, and a shift makes it -8 times the sum. d and the
    rounding are those of q8_k.
    """

    name = "q8_0"
    block_size = 32
    block_bytes = 40
    SCALE = 32
    BIAS = 36

    def emit_quantize(self, e: Emitter, x: Value, out: Value, count: int) -> None:
        scale, inverse = _scales(e, x, 32)
        low, high = (_round16(e, e.load(x, offset, e.floats(16)), inverse) for offset in (0, 64))
        e.store(e.trunc(low, e.I8), out, 0)
        e.store(e.trunc(high, e.I8), out, 16)
        e.store(scale, out, self.SCALE)
        e.store(e.mul(e.sum(e.add(low, high)), -128), out, self.BIAS)


class F32(Activation):
    """The floats themselves."""

    name = "f32"
    block_size = 1
    block_bytes = 4

    def emit_quantize(self, e: Emitter, x: Value, out: Value, count: int) -> None:
        e.store(e.load(x, 0, e.F32), out, 0)


class BF16(Activation):
    """Rounded to bfloat16."""

    name = "bf16"
    block_size = 1
    block_bytes = 2
    together = 32

    def emit_quantize(self, e: Emitter, x: Value, out: Value, count: int) -> None:
        e.store(e.to_brain(e.load(x, 0, e.F32 if count == 1 else e.floats(count))), out, 0)


ACTIVATIONS: dict[str, Activation] = {kind.name: kind for kind in (Q8K(), Q80(), F32(), BF16())}


def _scales(e: Emitter, x: Value, count: int) -> tuple[Value, Value]:
    """max|x| / 127, and 127 / max|x| in 16 lanes; both 0 where the block is (as good as) zero."""

    def largest(i: Value, so_far: list[Value]) -> list[Value]:
        return [e.maximum(e.abs(e.load(x, e.builder.mul(i, e.index(64)), e.floats(16))), so_far[0])]

    peak = e.loop(count // 16, [e.zero(e.floats(16))], largest)[0]
    while peak.type.count > 1:
        peak = e.maximum(*e.halves(peak))
    peak = e.lane(peak, 0)
    zero = e.zero(e.F32)
    usable = e.builder.fcmp_ordered(">=", peak, e.constant(e.F32, TINY))
    scale = e.builder.select(usable, e.builder.fdiv(peak, e.constant(e.F32, 127.0)), zero)
    inverse = e.builder.select(usable, e.builder.fdiv(e.constant(e.F32, 127.0), peak), zero)
    return scale, e.splat(inverse, 16)


def _round16(e: Emitter, x: Value, inverse: Value) -> Value:
    """16 floats -> their i32 quants."""
    shifted = e.add(e.mul(x, inverse), e.constant(x.type, ROUND))
    bits = e.cast(shifted, e.vector(e.I32, 16))
    return e.sub(bits, e.constant(bits.type, ROUND_BITS))
