"""IQ4_NL: 32 nibbles that choose from 16 unevenly spaced values, and a scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.nibbles import emit_nibbles, nibbles, strip_entries
from runtime.quants.small import SmallBlockType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter

VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""ggml-common.h kvalues_iq4nl"""


class IQ4_NL(SmallBlockType):
    # ggml-common.h block_iq4_nl: f16 d; u8 qs[16].  value = d * VALUES[q]
    name = "IQ4_NL"
    type_id = 20
    block_bytes = 18
    cuda = """
    float d = half_at(b);
    unsigned q[2];
    load8<2>(b + 2 + 8 * (p & 1), q);
    for (int i = 0; i < 2; i++) q[i] = lookup(IQ4_VALUES, q[i] >> 2 * (p & 2));
    scaled(w, q, d, -128 * d);
    """
    cuda_ints = """
    unsigned packed[4];
    load16<2>(b + 2, packed);
    lookup_nibbles(IQ4_VALUES, packed, o.q);
    o.d = half_at(b);
    """
    elements = (2,) + (4,) * 4
    OFFSET = 0
    LARGEST = 127

    def dequantize(self, blocks: Bytes) -> Floats:
        values = np.array(VALUES, np.float32)[nibbles(blocks[:, 2:])]
        return halves(blocks[:, :2]) * values

    def emit_products(self, e: Emitter, w: Value, xs: Sequence[Value], biases: Sequence[Value]) -> list[Value]:
        weights = e.lookup(VALUES, emit_nibbles(e, w, 2))
        return [e.dot_signed(weights, x, bias) for x, bias in zip(xs, biases, strict=True)]

    def emit_integers(self, e: Emitter, w: Value) -> Value:
        return e.sext(e.lookup(VALUES, emit_nibbles(e, w, 2)), e.I32)

    def strip_weights(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        return strip_entries(e, w, 2, [value + e.signed_offset for value in VALUES])
