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

    def unit(self, e: StripEmitter) -> int:
        return 1 if e.signed_offset else 4

    def strip_quants(self, e: StripEmitter, w: Strip) -> Iterator[tuple[Iterator[Value], list[int], int]]:
        if self.unit(e) == 4:
            yield from self._in_place(e, w)
            return
        for group in range(0, 16, 2):
            both = itertools.chain(*(strip_crumbs(e, w, 0, group + odd) for odd in (0, 1)))
            yield both, list(range(16 * group, 16 * group + 32, 4)), 1

    @staticmethod
    def _in_place(e: StripEmitter, w: Strip) -> Iterator[tuple[Iterator[Value], list[int], int]]:
        for half, first in itertools.product((0, 128), range(0, 32, 8)):
            packed = [w.bytes(half // 4 + first + i) for i in (0, 4)]
            parts = [*packed, *(e.shift_bytes(four, (-4,), 255) for four in packed)]
            for odd in (0, 1):
                inputs = [half + first + 32 * odd + i for i in (0, 4, 64, 68)]
                yield (e.band(part, 3 << 2 * odd) for part in parts), inputs, 4**odd
