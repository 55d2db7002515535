"""BF16: the upper half of an F32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value
from runtime.quants.floating import FloatType

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter


class BF16(FloatType):
    name = "BF16"
    type_id = 30
    block_bytes = 2
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
