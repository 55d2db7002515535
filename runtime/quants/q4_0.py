"""Q4_0: 32 nibbles, 8 subtracted, and a scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.nibbles import strip_nibbles
from runtime.quants.small import SmallBlockType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class Q4_0(SmallBlockType):
    # ggml-common.h block_q4_0: f16 d; u8 qs[16], low nibbles are values 0-15, high ones 16-31.  value = d * (q - 8)
    name = "Q4_0"
    type_id = 2
    block_bytes = 18
    cuda = """
    float d = half_at(b);
    unsigned q[2];
    load8<2>(b + 2 + 8 * (p & 1), q);
    for (int i = 0; i < 2; i++) q[i] = q[i] >> 2 * (p & 2) & 0x0f0f0f0f;
    scaled(w, q, d, -8 * d);
    """
    cuda_ints = """
    unsigned packed[4];
    load16<2>(b + 2, packed);
    nibbles(packed, o.q);
    o.d = half_at(b), o.least = -8 * o.d;
    """
    cuda_form = "OFFSET"
    elements = (2,) + (4,) * 4
    OFFSET = 8
    LARGEST = 15

    def dequantize(self, blocks: Bytes) -> Floats:
        packed = blocks[:, 2:]
        quants = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.int8) - np.int8(8)
        return halves(blocks[:, :2]) * quants.astype(np.float32)

    def emit_products(self, e: Emitter, w: Value, xs: Sequence[Value], biases: Sequence[Value]) -> list[Value]:
        quants = self._quants(e, w)
        starts = [e.first_lane(e.sar(bias, 4), 8) for bias in biases]  # -128 -> -8 times the sum
        return [e.dot(start, quants, x) for start, x in zip(starts, xs, strict=True)]

    def emit_integers(self, e: Emitter, w: Value) -> Value:
        quants = e.zext(self._quants(e, w), e.I32)
        return e.sub(quants, e.constant(quants.type, 8))

    def _quants(self, e: Emitter, w: Value) -> Value:
        """The 32 nibbles in order."""
        return e.shift_bytes(e.doubled(e.load(w, 2, e.bytes(16))), (0, -4), 15)

    def strip_weights(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        return strip_nibbles(e, w, 2)
