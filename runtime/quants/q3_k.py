"""Q3_K: sixteen groups of 16 three-bit quants, 4 subtracted, each with a 6-bit scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.crumbs import CRUMB_ORDER, crumbs, emit_crumbs, strip_crumbs
from runtime.quants.offset_block import OffsetBlockType
from runtime.quants.signed_block import Integers
from runtime.quants.strips import Strip, StripType
from runtime.quants.super_block import StripScales, add_strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class Q3_K(OffsetBlockType, StripType):
    # ggml-common.h block_q3_K: u8 hmask[32]; u8 qs[64]; u8 scales[12]; f16 d.  value = d * (scale[group] - 32) * (q - 4)
    # qs: see crumbs.py; bit g of hmask[i] is the third bit of value i of the 32 values g
    # scale g: nibble g // 8 of byte g % 8, and above it bits 2 (g // 4) and 2 (g // 4) + 1 of byte 8 + g % 4
    name = "Q3_K"
    type_id = 11
    block_bytes = 110
    elements = (4,) * 27 + (2,)
    long = True
    opens = 25
    shared = True
    OFFSET = 4
    QUANTS = 32
    SCALES = 96
    D = 108
    cuda = """
    int group = p >> 1, packed = group < 8 ? b[96 + group] & 15 : b[88 + group] >> 4;
    float d = half_at(b + 108) * ((packed | (b[104 + (group & 3)] >> 2 * (group >> 2) & 3) << 4) - 32);
    unsigned q[2], high[2];
    load8<2>(b + 32 + 32 * (p >> 4) + 8 * (p & 3), q);
    load8<2>(b + 8 * (p & 3), high);
    for (int i = 0; i < 2; i++) q[i] = q[i] >> (p >> 1 & 6) & 0x03030303 | (high[i] >> (p >> 2) & 0x01010101) << 2;
    scaled(w, q, d, -4 * d);
    """
    cuda_ints = """
    int group = 4 * (p >> 1) + (p & 1), upper = 2 * (group >> 2);  // of the first run; the second's is two groups on
    unsigned packed[4], high[4], scales = 0;
    load16<2>(b + 32 + 32 * (p >> 2) + 16 * (p & 1), packed), load16<2>(b + 16 * (p & 1), high);
    for (int i = 0; i < 8; i++) {
        o.q[i] = packed[i & 3] >> 2 * (p & 2) + 2 * (i >> 2) & 0x03030303;
        o.q[i] |= (high[i & 3] >> 2 * (p >> 1) + (i >> 2) & 0x01010101) << 2;
    }
    for (int i = 0; i < 2; i++) {
        int at = group + 2 * i, scale = b[96 + (at & 7)] >> (at & 8) / 2 & 15 | (b[104 + (at & 3)] >> upper & 3) << 4;
        scales |= (scale - 32 & 255) << 8 * i;
    }
    o.scales = o.minimums = scales;
    o.d = half_at(b + 108), o.least = -4 * o.d;
    """
    cuda_form = "SCALED"
    cuda_step = 32
    cuda_scales = 16

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        packed = blocks[:, self.SCALES : self.D]
        low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
        high = (packed[:, None, 8:] >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3).reshape(-1, 16)
        scales = (low | high << 4).astype(np.int8) - np.int8(32)
        third = (blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None] & 1).reshape(-1, 256)
        quants = crumbs(blocks[:, self.QUANTS : self.SCALES]) | third << 2
        return halves(blocks[:, self.D :]), scales, quants.astype(np.int8) - np.int8(self.OFFSET)

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.load_half(w, self.D, count)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        first, second, third = (e.load(w, self.SCALES + offset, e.vector(e.I32, 1)) for offset in (0, 4, 8))
        low = e.band(e.shr(e.doubled(e.concat(first, second)), [0, 0, 4, 4]), 0x0F0F0F0F)
        high = e.shl(e.band(e.shr(e.shuffle(third, [0] * 4), [0, 2, 4, 6]), 0x03030303), 4)
        scales = e.cast(e.bor(low, high), e.bytes(16))
        return e.sub(scales, e.constant(scales.type, 32))

    def emit_quants(self, e: Emitter, w: Value) -> Iterator[Value]:
        return (self._quarter(e, w, quarter) for quarter in range(4))

    def _quarter(self, e: Emitter, w: Value, quarter: int) -> Value:
        third = e.shift_bytes(e.doubled(e.load(w, 0, e.bytes(32))), (2 - 2 * quarter, 1 - 2 * quarter), 4)
        return e.bor(emit_crumbs(e, w, self.QUANTS, quarter), third)

    def pinned(self, e: StripEmitter) -> bool:
        return e.registers == 32

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        scales = StripScales(e, w, xs, [self._strip_scales(e, w, k) for k in range(4)], 2)  # OFFSET is 4
        totals = scales.starts()
        for group in CRUMB_ORDER:
            third = 2 - group // 2  # where the bit of this group has to go
            quants = (
                e.bor(low, e.shift_bytes(w.bytes(16 * (group % 2) + 4 * i), (third,), 4))
                for i, low in enumerate(strip_crumbs(e, w, self.QUANTS, group))
            )
            totals = e.strip_dot(totals, w.paced(quants), xs, range(16 * group, 16 * group + 16, 4), scales[group], 7, w.wait)
        d = w.half(self.D)
        return add_strip(e, xs, [e.mul(e.float(total), d) for total in scales.ends(totals)], sums)

    def _strip_scales(self, e: StripEmitter, w: Strip, k: int) -> Value:
        """Scales of groups 4 k to 4 k + 3 of every row, <4 lanes x i8>."""
        low = e.shift_bytes(w.bytes(self.SCALES + 4 * (k % 2)), (-4 * (k // 2),), 15)
        high = e.shift_bytes(w.bytes(self.SCALES + 8), (4 - 2 * k,), 0x30)
        scales = e.bor(low, high)
        return e.sub(scales, e.constant(scales.type, 32))
