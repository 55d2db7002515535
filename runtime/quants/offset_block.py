"""What types with small unsigned quants and one offset share (Q3_K, IQ3_S, IQ1_*, TQ*): super-blocks, no minimum."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from runtime.quants.activations import Q8K
from runtime.quants.base import Value
from runtime.quants.signed_block import SignedBlockType
from runtime.quants.super_block import load_half

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter


class OffsetBlockType(SignedBlockType):
    """A signed type whose weights come as weight + OFFSET, from 0 to 63: their products take fewer instructions."""

    OFFSET: int
    LARGEST = 63

    @property
    def magnitude(self) -> int:
        return self.OFFSET  # they are about symmetric

    @abc.abstractmethod
    def emit_quants(self, e: Emitter, w: Value) -> Iterator[Value]:
        """weight + OFFSET of the block's weights, four <64 x i8>."""

    def emit_weights(self, e: Emitter, w: Value) -> Iterator[Value]:
        return (e.sub(quants, e.constant(quants.type, self.OFFSET)) for quants in self.emit_quants(e, w))

    def _emit_total(self, e: Emitter, w: Value, xs: Sequence[Value]) -> list[Value]:
        packed, quants = self.emit_scales(e, w), self.emit_quants(e, w)
        offsets = e.mul(e.sext(packed, e.I16), self.OFFSET)
        totals = [e.to_lanes(e.madd16(offsets, e.load(x, Q8K.SUMS, e.vector(e.I16, 16)))) for x in xs]
        for half, scales in enumerate(e.lane_scales(packed, range(16), signed=True)):
            two = list(itertools.islice(quants, 2))
            totals = e.dot_scaled(totals, two, [load_half(e, x, half) for x in xs], scales)
        return totals
