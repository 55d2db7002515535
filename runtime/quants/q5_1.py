"""Q5_1: 32 five-bit quants, a scale and a minimum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from runtime.quants.base import Bytes, Value
from runtime.quants.nibbles import emit_fifth_bits, emit_nibbles, fifth_bits, nibbles, strip_fifth_bits, strip_nibbles
from runtime.quants.small_min import SmallMinType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class Q5_1(SmallMinType):
    # ggml-common.h block_q5_1: f16 d; f16 m; u32 qh; u8 qs[16].  Bit i of qh is the fifth bit of value i
    name = "Q5_1"
    type_id = 7
    block_bytes = 24
    cuda = """
    unsigned q[2], high = b[4 + p];
    load8<4>(b + 8 + 8 * (p & 1), q);
    for (int i = 0; i < 2; i++) q[i] = q[i] >> 2 * (p & 2) & 0x0f0f0f0f | spread_bits(high >> 4 * i) << 4;
    scaled(w, q, half_at(b), half_at(b + 2));
    """
    cuda_ints = """
    unsigned packed[4], high = *reinterpret_cast<const unsigned*>(b + 4);
    load16<4>(b + 8, packed);
    nibbles(packed, o.q);
    for (int i = 0; i < 8; i++) o.q[i] |= spread_bits(high >> 4 * i) << 4;
    o.d = half_at(b), o.least = half_at(b + 2);
    """
    cuda_form = "OFFSET"
    elements = (2, 2, 4) + (4,) * 4
    LARGEST = 31

    def quants(self, blocks: Bytes) -> Bytes:
        return nibbles(blocks[:, 8:]) | fifth_bits(blocks[:, 4:8])

    def emit_quants(self, e: Emitter, w: Value) -> Value:
        return e.bor(emit_nibbles(e, w, 8), emit_fifth_bits(e, w, 4))

    def strip_weights(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        return (e.bor(*parts) for parts in zip(strip_nibbles(e, w, 8), strip_fifth_bits(e, w, 4), strict=True))
