"""Q4_K: eight groups of 32 nibbles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Value
from runtime.quants.scale_min import ScaleMinType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class Q4_K(ScaleMinType):
    # ggml-common.h block_q4_K: f16 d; f16 dmin; u8 scales[12]; u8 qs[128]
    # 32 bytes of qs hold two groups: low nibbles the even one, high nibbles the odd one
    name = "Q4_K"
    type_id = 12
    block_bytes = 144
    cuda = """
    float2 s = scale_min(b, p >> 2);
    unsigned q[2];
    load8<8>(b + 16 + 32 * (p >> 3) + 8 * (p & 3), q);
    for (int i = 0; i < 2; i++) q[i] = q[i] >> (p & 4) & 0x0f0f0f0f;
    scaled(w, q, s.x, -s.y);
    """
    cuda_ints = """
    scale_min_pair(b, p >> 1, o);
    unsigned packed[4];
    load16<16>(b + 16 + 16 * p, packed);
    nibbles(packed, o.q);
    """
    cuda_form = "SCALED"
    cuda_step = 32
    elements = (2, 2) + (4,) * 35
    long = True
    LARGEST = 15

    def quants(self, blocks: Bytes) -> Bytes:
        packed = blocks[:, 16:].reshape(-1, 4, 32)
        return np.stack([packed & 15, packed >> 4], axis=2).reshape(-1, 8, 32)

    def emit_quants(self, e: Emitter, w: Value, pair: int) -> Value:
        return e.shift_bytes(e.doubled(e.load(w, 16 + 32 * pair, e.bytes(32))), (0, -4), 15)

    def pinned(self, e: StripEmitter) -> bool:
        return e.registers == 16

    def strip_quants(self, e: StripEmitter, w: Strip, group: int) -> Iterator[Value]:
        pair, half = divmod(group, 2)
        return (e.shift_bytes(w.bytes(16 + 32 * pair + 4 * i), (-4 * half,), 15) for i in range(8))
