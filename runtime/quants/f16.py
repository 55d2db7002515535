"""F16: IEEE half precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.floating import FloatType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class F16(FloatType):
    name = "F16"
    type_id = 1
    block_bytes = 2
    elements = (2,)
    together = 2
    cuda = """
    unsigned q[4];
    load8<8>(b, q), load8<8>(b + 8, q + 2);
    for (int i = 0; i < 8; i++) w[i] = half_bits(q[i >> 1] >> 16 * (i & 1));
    """

    def dequantize(self, blocks: Bytes) -> Floats:
        return halves(blocks)

    def emit_load(self, e: Emitter, w: Value, offset: int, count: int) -> Value:
        return e.half(e.load(w, offset, e.I16 if count == 1 else e.vector(e.I16, count)))

    def strip_values(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        return (e.half(w.words(2 * k)) for k in range(w.count))
