"""Q8_0: 32 signed bytes and a scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.small import SmallBlockType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class Q8_0(SmallBlockType):
    # ggml-common.h block_q8_0: f16 d; i8 qs[32].  value = d * q
    name = "Q8_0"
    type_id = 8
    block_bytes = 34
    cuda = """
    float d = half_at(b);
    unsigned q[2];
    load8<2>(b + 2 + 8 * p, q);
    for (int i = 0; i < 2; i++) q[i] ^= 0x80808080;
    scaled(w, q, d, -128 * d);
    """
    cuda_ints = """
    load_odd<8>(b + 2, o.q);
    o.d = half_at(b);
    """
    elements = (2,) + (4,) * 8
    OFFSET = 0
    LARGEST = 128

    def dequantize(self, blocks: Bytes) -> Floats:
        return halves(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)

    def emit_products(self, e: Emitter, w: Value, xs: Sequence[Value], biases: Sequence[Value]) -> list[Value]:
        weights = e.load(w, 2, e.bytes(32))
        return [e.dot_signed(weights, x, bias) for x, bias in zip(xs, biases, strict=True)]

    def emit_integers(self, e: Emitter, w: Value) -> Value:
        return e.sext(e.load(w, 2, e.bytes(32)), e.I32)

    def strip_weights(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        return (e.xor(w.bytes(2 + 4 * i), e.signed_offset) for i in range(8))  # 128 is the sign bit, and 0 changes nothing
