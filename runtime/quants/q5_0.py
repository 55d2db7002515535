"""Q5_0: 32 five-bit quants, 16 subtracted, and a scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.nibbles import emit_fifth_bits, emit_nibbles, fifth_bits, nibbles, strip_fifth_bits, strip_nibbles
from runtime.quants.small import SmallBlockType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class Q5_0(SmallBlockType):
    # ggml-common.h block_q5_0: f16 d; u32 qh; u8 qs[16].  value = d * (q - 16), bit i of qh is the fifth bit of value i
    name = "Q5_0"
    type_id = 6
    block_bytes = 22
    cuda = """
    float d = half_at(b);
    unsigned q[2], high = b[2 + p];
    load8<2>(b + 6 + 8 * (p & 1), q);
    for (int i = 0; i < 2; i++) q[i] = q[i] >> 2 * (p & 2) & 0x0f0f0f0f | spread_bits(high >> 4 * i) << 4;
    scaled(w, q, d, -16 * d);
    """
    cuda_ints = """
    unsigned packed[4], high = short_at(b + 2) | short_at(b + 4) << 16;
    load16<2>(b + 6, packed);
    nibbles(packed, o.q);
    for (int i = 0; i < 8; i++) o.q[i] |= spread_bits(high >> 4 * i) << 4;
    o.d = half_at(b), o.least = -16 * o.d;
    """
    cuda_form = "OFFSET"
    elements = (2, 4) + (4,) * 4
    OFFSET = 16
    LARGEST = 31

    def dequantize(self, blocks: Bytes) -> Floats:
        quants = (nibbles(blocks[:, 6:]) | fifth_bits(blocks[:, 2:6])).astype(np.int8) - np.int8(16)
        return halves(blocks[:, :2]) * quants.astype(np.float32)

    def emit_products(self, e: Emitter, w: Value, xs: Sequence[Value], biases: Sequence[Value]) -> list[Value]:
        quants = self._quants(e, w)
        starts = [e.first_lane(e.sar(bias, 3), 8) for bias in biases]  # -128 -> -16 times the sum
        return [e.dot(start, quants, x) for start, x in zip(starts, xs, strict=True)]

    def emit_integers(self, e: Emitter, w: Value) -> Value:
        quants = e.zext(self._quants(e, w), e.I32)
        return e.sub(quants, e.constant(quants.type, 16))

    @staticmethod
    def _quants(e: Emitter, w: Value) -> Value:
        return e.bor(emit_nibbles(e, w, 6), emit_fifth_bits(e, w, 2))

    def strip_weights(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        return (e.bor(*parts) for parts in zip(strip_nibbles(e, w, 6), strip_fifth_bits(e, w, 2), strict=True))
