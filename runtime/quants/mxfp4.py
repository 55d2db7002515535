"""MXFP4: 32 four-bit floats (E2M1) and a power of two, the OCP microscaling format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value
from runtime.quants.nibbles import emit_nibbles, nibbles, strip_entries
from runtime.quants.small import SmallBlockType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter

VALUES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""Twice the floats, so that they are integers; ggml-common.h kvalues_mxfp4."""
UNSIGNED = 12  # makes them unsigned


class MXFP4(SmallBlockType):
    # ggml-common.h block_mxfp4: u8 e; u8 qs[16].  value = 2^(e - 128) * VALUES[q]
    name = "MXFP4"
    type_id = 39
    block_bytes = 17
    cuda = """
    unsigned e = b[0], q[2];
    float d = __uint_as_float(e < 2 ? 0x200000u << e : e - 1 << 23);  // half of 2 ** (e - 127)
    load8<1>(b + 1 + 8 * (p & 1), q);
    for (int i = 0; i < 2; i++) q[i] = lookup(MXFP4_VALUES, q[i] >> 2 * (p & 2));
    scaled(w, q, d, -128 * d);
    """
    cuda_ints = """
    unsigned e = b[0], packed[4];
    load16<1>(b + 1, packed);
    lookup_nibbles(MXFP4_VALUES, packed, o.q);
    o.d = __uint_as_float(e < 2 ? 0x200000u << e : e - 1 << 23);
    """
    elements = (1,) + (4,) * 4
    OFFSET = 16
    LARGEST = 28

    def dequantize(self, blocks: Bytes) -> Floats:
        exponent = blocks[:, :1].astype(np.uint32)
        # 2^-128 and 2^-127 are subnormal
        bits = np.where(exponent < 2, np.uint32(1 << 21) << exponent, (exponent - np.uint32(1)) << np.uint32(23))
        return bits.view(np.float32) * np.array(VALUES, np.float32)[nibbles(blocks[:, 1:])]

    def emit_scale(self, e: Emitter, w: Value, count: int) -> Value:
        return self._power(e, e.zext(e.load_splat(w, 0, e.I8, count), e.I32))

    @staticmethod
    def _power(e: Emitter, exponent: Value) -> Value:
        """2^(exponent - 128) of i32 exponents."""
        normal = e.shl(e.sub(exponent, e.constant(exponent.type, 1)), 23)
        subnormal = e.shl(e.add(exponent, e.constant(exponent.type, 1)), 21)  # 1, 2: the same as 1 << exponent
        larger = e.builder.icmp_signed(">", subnormal, normal)  # of exponents below 2; the maximum is one instruction
        return e.cast(e.builder.select(larger, subnormal, normal), e.floats(exponent.type.count))

    def emit_products(self, e: Emitter, w: Value, xs: Sequence[Value], biases: Sequence[Value]) -> list[Value]:
        weights = e.lookup([value + UNSIGNED for value in VALUES], emit_nibbles(e, w, 1))
        starts = [e.first_lane(e.mul(e.sar(bias, 7), UNSIGNED), 8) for bias in biases]  # -UNSIGNED times the sum
        return [e.dot(start, weights, x) for start, x in zip(starts, xs, strict=True)]

    def emit_integers(self, e: Emitter, w: Value) -> Value:
        return e.sext(e.lookup(VALUES, emit_nibbles(e, w, 1)), e.I32)

    def strip_weights(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        return strip_entries(e, w, 1, [value + self.OFFSET for value in VALUES])

    def strip_scale(self, e: StripEmitter, w: Strip) -> Value:
        return self._power(e, e.zext(w.byte(0), e.I32))
