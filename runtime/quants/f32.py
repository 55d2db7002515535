"""F32: the values themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value
from runtime.quants.floating import TOGETHER, FloatType
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class F32(FloatType):
    name = "F32"
    type_id = 0
    block_bytes = 4
    elements = (4,)
    cuda = """
    for (int i = 0; i < 8; i++) w[i] = reinterpret_cast<const float*>(b)[i];
    """

    def dequantize(self, blocks: Bytes) -> Floats:
        return np.ascontiguousarray(blocks).view("<f4")

    def emit_load(self, e: Emitter, w: Value, offset: int, count: int) -> Value:
        return e.load(w, offset, e.F32 if count == 1 else e.floats(count))

    def strips_together(self, columns: int, e: StripEmitter) -> int:
        return 2 * TOGETHER if columns == 1 and e.registers == 16 else super().strips_together(columns, e)

    def emit_strips(self, e: StripEmitter, strips: Sequence[Strip], xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        if len(xs) == 1 and e.registers == 16:  # a line for each two registers takes a third of all loads
            for w in strips:
                w.ask_nothing()
        return super().emit_strips(e, strips, xs, sums)

    def strip_values(self, e: StripEmitter, w: Strip) -> Iterator[Value]:
        return (e.cast(w.dwords(4 * k), e.floats(e.lanes)) for k in range(w.count))
