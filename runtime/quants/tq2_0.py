"""TQ2_0: 256 values of -1, 0 and 1 (or 2) in two bits each, and a scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.crumbs import crumbs, emit_crumbs
from runtime.quants.offset_block import OffsetBlockType
from runtime.quants.signed_block import Integers

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter


class TQ2_0(OffsetBlockType):
    # ggml-common.h block_tq2_0: u8 qs[64]; f16 d.  value = d * (q - 1); qs: see crumbs.py
    name = "TQ2_0"
    type_id = 35
    block_bytes = 66
    OFFSET = 1
    D = 64

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        weights = crumbs(blocks[:, : self.D]).astype(np.int8) - np.int8(self.OFFSET)
        return halves(blocks[:, self.D :]), np.ones((len(blocks), 16), np.int8), weights

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.load_half(w, self.D, count)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        return e.constant(e.bytes(16), 1)

    def emit_quants(self, e: Emitter, w: Value, quarter: int) -> Value:
        return emit_crumbs(e, w, 0, quarter)
