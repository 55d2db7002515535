"""TQ2_0: 256 values of -1, 0 and 1 (or 2) in two bits each, and a scale."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.crumbs import crumbs, emit_crumbs, strip_crumbs
from runtime.quants.signed_block import Integers
from runtime.quants.strips import Strip
from runtime.quants.ternary import TernaryType

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class TQ2_0(TernaryType):
    # ggml-common.h block_tq2_0: u8 qs[64]; f16 d.  value = d * (q - 1); qs: see crumbs.py
    name = "TQ2_0"
    type_id = 35
    block_bytes = 66
    elements = (4,) * 16 + (2,)
    D = 64

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        weights = crumbs(blocks[:, : self.D]).astype(np.int8) - np.int8(self.OFFSET)
        return halves(blocks[:, self.D :]), np.ones((len(blocks), 16), np.int8), weights

    def emit_quants(self, e: Emitter, w: Value) -> Iterator[Value]:
        return (emit_crumbs(e, w, 0, quarter) for quarter in range(4))

    def strip_quants(self, e: StripEmitter, w: Strip) -> Iterator[tuple[Iterator[Value], list[int]]]:
        for group in range(0, 16, 2):
            both = itertools.chain(*(strip_crumbs(e, w, 0, group + odd) for odd in (0, 1)))
            yield both, list(range(16 * group, 16 * group + 32, 4))
