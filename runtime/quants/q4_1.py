"""Q4_1: 32 nibbles, a scale and a minimum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from runtime.quants.base import Bytes, Value
from runtime.quants.nibbles import emit_nibbles, nibbles, strip_nibbles
from runtime.quants.small_min import SmallMinType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class Q4_1(SmallMinType):
    # ggml-common.h block_q4_1: f16 d; f16 m; u8 qs[16]
    name = "Q4_1"
    type_id = 3
    block_bytes = 20
    cuda = """
    unsigned q[2];
    load8<4>(b + 4 + 8 * (p & 1), q);
    for (int i = 0; i < 2; i++) q[i] = q[i] >> 2 * (p & 2) & 0x0f0f0f0f;
    scaled(w, q, half_at(b), half_at(b + 2));
    """
    cuda_ints = """
    unsigned packed[4];
    load16<4>(b + 4, packed);
    nibbles(packed, o.q);
    o.d = half_at(b), o.least = half_at(b + 2);
    """
    cuda_form = "OFFSET"
    elements = (2, 2) + (4,) * 4
    LARGEST = 15

    def quants(self, blocks: Bytes) -> Bytes:
        return nibbles(blocks[:, 4:])

    def emit_quants(self, e: Emitter, w: Value) -> Value:
        return emit_nibbles(e, w, 4)

    def strip_weights(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        return strip_nibbles(e, w, 4)
