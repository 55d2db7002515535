"""Q5_K: eight groups of 32 five-bit quants."""

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


class Q5_K(ScaleMinType):
    # ggml-common.h block_q5_K: f16 d; f16 dmin; u8 scales[12]; u8 qh[32]; u8 qs[128]
    # qs as in Q4_K; bit g of qh[i] is the fifth bit of value i of group g
    name = "Q5_K"
    type_id = 13
    block_bytes = 176
    cuda = """
    float2 s = scale_min(b, p >> 2);
    unsigned q[2], high[2];
    load8<8>(b + 48 + 32 * (p >> 3) + 8 * (p & 3), q);
    load8<8>(b + 16 + 8 * (p & 3), high);
    for (int i = 0; i < 2; i++) q[i] = q[i] >> (p & 4) & 0x0f0f0f0f | (high[i] >> (p >> 2) & 0x01010101) << 4;
    scaled(w, q, s.x, -s.y);
    """
    cuda_ints = """
    scale_min_pair(b, p >> 1, o);
    unsigned packed[4], high[4];
    load16<16>(b + 48 + 16 * p, packed), load16<16>(b + 16 + 16 * (p & 1), high);
    nibbles(packed, o.q);
    for (int i = 0; i < 8; i++) o.q[i] |= (high[i & 3] >> 2 * (p >> 1) + (i >> 2) & 0x01010101) << 4;
    """
    cuda_form = "SCALED"
    cuda_step = 32
    elements = (2, 2) + (4,) * 43
    long = True
    LARGEST = 31

    def quants(self, blocks: Bytes) -> Bytes:
        packed = blocks[:, 48:].reshape(-1, 4, 32)
        nibbles = np.stack([packed & 15, packed >> 4], axis=2).reshape(-1, 8, 32)
        fifth = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
        quants: Bytes = nibbles | fifth << 4
        return quants

    def emit_quants(self, e: Emitter, w: Value, pair: int) -> Value:
        nibbles = e.shift_bytes(e.doubled(e.load(w, 48 + 32 * pair, e.bytes(32))), (0, -4), 15)
        fifth = e.shift_bytes(e.doubled(e.load(w, 16, e.bytes(32))), (4 - 2 * pair, 3 - 2 * pair), 16)
        return e.bor(nibbles, fifth)

    def pinned(self, e: StripEmitter) -> bool:
        return e.registers == 32 or e.scales_are_pairs  # with AVX-VNNI LLVM's own order is a fifth faster

    def strip_quants(self, e: StripEmitter, w: Strip, group: int) -> Iterator[Value]:
        pair, half = divmod(group, 2)
        for i in range(8):
            nibbles = e.shift_bytes(w.bytes(48 + 32 * pair + 4 * i), (-4 * half,), 15)
            yield e.bor(nibbles, e.shift_bytes(w.bytes(16 + 4 * i), (4 - group,), 16))
