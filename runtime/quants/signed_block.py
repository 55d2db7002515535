"""What types with signed byte weights in super-blocks share (IQ4_XS, IQ2_*, IQ3_XXS): a signed scale for each 16 weights."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.quants.activations import Q8K
from runtime.quants.base import Bytes, Floats, Value
from runtime.quants.super_block import SuperBlockType, load_half

if TYPE_CHECKING:
    from runtime.kernels.basics import Operand
    from runtime.kernels.emitter import Emitter

Integers = npt.NDArray[np.signedinteger[Any]]


class SignedBlockType(SuperBlockType):
    """value = factor * scale[group of 16] * weight, integers |scale| <= 63 and |weight| <= LARGEST.

    At most 24 bits, so the product is exact and the order of its factors does not matter. A block's sum is a whole number and
    becomes a float only then, as in strips: so a row's result is the same in both.
    """

    LARGEST: int
    GROUP: int = 16  # weights that have the same scale, 16 or 32

    @property
    def magnitude(self) -> int:
        """What no weight is above."""
        return self.LARGEST

    @abc.abstractmethod
    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        """(n, block_bytes) -> factors (n, 1), scales (n, 16) and weights (n, 256)."""

    @abc.abstractmethod
    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        """The block's factor as f32 in `count` lanes."""

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        """The block's scales, <16 x i8>."""
        return e.trunc(self.emit_pairs(e, w), e.I8)

    def emit_pairs(self, e: Emitter, w: Value) -> Value | None:
        """The same as <16 x i16>, where each is there twice; else None."""
        return None

    def lane_scales(self, e: Emitter, w: Value) -> list[Operand]:
        """Scales as `dot_scaled` takes them."""
        pairs = self.emit_pairs(e, w)
        return e.lane_scales(self.emit_scales(e, w), range(16), signed=True) if pairs is None else e.pair_scales(pairs)

    @abc.abstractmethod
    def emit_weights(self, e: Emitter, w: Value) -> Iterator[Value]:
        """The block's weights, four <64 x i8>."""

    def dequantize(self, blocks: Bytes) -> Floats:
        factors, scales, weights = self.parts(blocks)
        scaled = factors * scales.astype(np.float32)
        values: Floats = scaled[:, :, None] * weights.reshape(-1, 16, 16).astype(np.float32)
        return values.reshape(-1, self.block_size)

    def steps(self, e: Emitter, columns: int = 0) -> Sequence[int]:
        if columns != 1:
            return (1,)
        return (2, 1) if e.registers == 32 else (1,)  # two blocks' totals are added up together, for which there are registers

    def emit_dot(self, e: Emitter, w: Value, xs: Sequence[Value], sums: Sequence[list[Value]], count: int) -> list[list[Value]]:
        totals = []  # of each block those of the columns
        for of_block in self.emit_totals(e, w, xs, count):
            totals.append(of_block)
            sums = [[e.held(column[0], total)] for column, total in zip(sums, of_block, strict=True)]
        alone = len(xs) == 1
        numbers = [[n] for n in e.sums([total for total, in totals])] if alone else [e.sums(of_block) for of_block in totals]
        for k, of_block in enumerate(numbers):
            factor, place = e.lane(self.emit_factor(e, e.at(w, k * self.block_bytes), 4), 0), k * Q8K.block_bytes + Q8K.SCALE
            sums = [
                [e.fma(e.mul(e.float(number), factor), e.load(x, place, e.F32), column[0])]
                for x, number, column in zip(xs, of_block, sums, strict=True)
            ]
        return list(sums)

    def emit_totals(self, e: Emitter, w: Value, xs: Sequence[Value], count: int) -> Iterator[list[Value]]:
        """Of each of `count` blocks, for each column, integers whose sum is that of scale * weight * input."""
        for k in range(count):
            yield self._emit_total(e, e.at(w, k * self.block_bytes), [e.at(x, k * Q8K.block_bytes) for x in xs])

    def _emit_total(self, e: Emitter, w: Value, xs: Sequence[Value]) -> list[Value]:
        packed, weights = self.emit_scales(e, w), self.emit_weights(e, w)
        totals = [e.zero(e.vector(e.I32, e.lanes)) for _ in xs]
        for half, scales in enumerate(e.byte_scales(packed, self.LARGEST)):
            two = list(itertools.islice(weights, 2))
            totals = e.dot_bytes(totals, two, [load_half(e, x, half) for x in xs], scales, self.LARGEST)
        return totals

    def start(self, e: Emitter) -> list[Value]:
        return [e.zero(e.F32)]

    def finish(self, e: Emitter, sums: list[Value]) -> Value:
        return sums[0]

    def emit_dequantize(self, e: Emitter, w: Value, out: Value, count: int) -> None:
        for block in range(count):
            self._emit_dequantize(e, e.at(w, block * self.block_bytes), e.at(out, 4 * block * self.block_size))

    def _emit_dequantize(self, e: Emitter, w: Value, out: Value) -> None:
        scales = e.mul(e.float(e.sext(self.emit_scales(e, w), e.I32)), self.emit_factor(e, w, 16))
        for quarter, whole in enumerate(self.emit_weights(e, w)):
            for half, weights in enumerate(e.halves(whole)):
                group = 4 * quarter + 2 * half
                spread = e.shuffle(scales, [group] * 16 + [group + 1] * 16)
                e.store(e.mul(e.float(e.sext(weights, e.I32)), spread), out, 4 * 16 * group)
