"""BF16: the upper half of an F32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value
from runtime.quants.floating import FloatType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class BF16(FloatType):
    name = "BF16"
    type_id = 30
    block_bytes = 2
    rounded = "bf16"
    elements = (4,)  # a pair of values
    strip_blocks = 2
    strip_steps = (16, 1)
    together = 2
    cuda = """
    unsigned q[4];
    load8<8>(b, q), load8<8>(b + 8, q + 2);
    for (int i = 0; i < 8; i++) w[i] = __uint_as_float(i & 1 ? q[i >> 1] & 0xffff0000u : q[i >> 1] << 16);
    """

    def dequantize(self, blocks: Bytes) -> Floats:
        return (np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << 16).view(np.float32)

    def emit_load(self, e: Emitter, w: Value, offset: int, count: int) -> Value:
        return e.brain(e.load(w, offset, e.I16 if count == 1 else e.vector(e.I16, count)))

    def emit_input(self, e: Emitter, x: Value, first: int, count: int) -> Value:
        if not e.multiplies_brains:
            return super().emit_input(e, x, first, count)
        return self.emit_load(e, x, 2 * first, count)

    def pinned(self, e: StripEmitter) -> bool:
        return e.registers == 32 and not e.multiplies_brains

    def strip_values(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        for pair in range(w.count):
            both = w.dwords(4 * pair)
            for bits in (e.shl(both, 16), e.band(both, 0xFFFF0000)):
                yield e.cast(bits, e.floats(e.lanes))

    def strip_walk(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        if not e.multiplies_brains:
            return super().strip_walk(e, w)
        return w.paced((w.dwords(4 * pair) for pair in range(w.count)), w.count)

    def strip_input(self, e: StripEmitter, x: Value, k: int) -> Value:
        return e.splat_i32(x, 4 * k) if e.multiplies_brains else super().strip_input(e, x, k)

    def strip_product(self, e: StripEmitter, values: Value, inputs: Value, total: Value) -> Value:
        return e.dot_brains(total, values, inputs) if e.multiplies_brains else super().strip_product(e, values, inputs, total)
