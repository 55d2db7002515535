"""Q6_K: sixteen groups of 16 six-bit quants, 32 subtracted, each with a signed 8-bit scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.activations import Q8K
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.crumbs import CRUMB_ORDER
from runtime.quants.strips import Strip, StripType
from runtime.quants.super_block import SuperBlockType, add_strip, load_half, strip_offsets

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class Q6_K(SuperBlockType, StripType):
    # ggml-common.h block_q6_K: u8 ql[128]; u8 qh[64]; i8 scales[16]; f16 d.  value = d * scale[group] * (q - 32)
    # Each half of 128 values has 64 bytes of ql (low nibbles: values 0-63, high: 64-127) and 32 bytes of qh, whose
    # byte i holds the upper two bits of values i, 32 + i, 64 + i and 96 + i, from its lowest bits on.
    name = "Q6_K"
    type_id = 14
    block_bytes = 210
    elements = (4,) * 52 + (2,)
    widest = 4
    shared = True
    SCALES = 192
    D = 208
    cuda = """
    float d = half_at(b + 208) * (signed char)b[192 + (p >> 1)];
    unsigned q[2], high[2];
    load8<2>(b + 64 * (p >> 4) + 8 * (p & 7), q);
    load8<2>(b + 128 + 32 * (p >> 4) + 8 * (p & 3), high);
    for (int i = 0; i < 2; i++) q[i] = q[i] >> (p >> 1 & 4) & 0x0f0f0f0f | (high[i] >> (p >> 1 & 6) & 0x03030303) << 4;
    scaled(w, q, d, -32 * d);
    """
    cuda_ints = """
    unsigned packed[4], high[4], group = 8 * (p >> 2) + (p & 3);
    load16<2>(b + 64 * (p >> 2) + 16 * (p & 3), packed), load16<2>(b + 128 + 32 * (p >> 2) + 16 * (p & 1), high);
    nibbles(packed, o.q);
    for (int i = 0; i < 8; i++) o.q[i] |= (high[i & 3] >> (p & 2) + 4 * (i >> 2) & 0x03030303) << 4;
    o.scales = o.minimums = b[192 + group] | b[196 + group] << 8;
    o.d = half_at(b + 208), o.least = -32 * o.d;
    """
    cuda_form = "SCALED"
    cuda_step = 64

    def dequantize(self, blocks: Bytes) -> Floats:
        scales = halves(blocks[:, self.D :]) * blocks[:, self.SCALES : self.D].view(np.int8).astype(np.float32)
        low, high = blocks[:, :128].reshape(-1, 2, 64), blocks[:, 128:192].reshape(-1, 2, 1, 32)
        nibbles = np.stack([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
        upper = high >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
        quants = (nibbles | upper << 4).astype(np.int8) - np.int8(32)
        values: Floats = scales[:, :, None] * quants.reshape(-1, 16, 16).astype(np.float32)
        return values.reshape(-1, self.block_size)

    def emit_dot(self, e: Emitter, w: Value, xs: Sequence[Value], sums: Sequence[list[Value]], count: int) -> list[list[Value]]:
        packed = e.load(w, self.SCALES, e.bytes(16))
        offsets = e.mul(e.sext(packed, e.I16), 32)
        totals = [e.to_lanes(e.madd16(offsets, e.load(x, Q8K.SUMS, e.vector(e.I16, 16)))) for x in xs]
        for half, scales in enumerate(e.lane_scales(packed, range(16), signed=True)):
            quants = [self._quants(e, w, quarter) for quarter in (2 * half, 2 * half + 1)]
            totals = e.dot_scaled(totals, quants, [load_half(e, x, half) for x in xs], scales)
        d = e.load_half(w, self.D, e.lanes)
        return [
            [e.fma(e.mul(e.float(total), d), e.load_splat(x, Q8K.SCALE, e.F32, e.lanes), column[0])]
            for x, total, column in zip(xs, totals, sums, strict=True)
        ]

    def emit_dequantize(self, e: Emitter, w: Value, out: Value, count: int) -> None:
        scales = e.float(e.sext(e.load(w, self.SCALES, e.bytes(16)), e.I32))
        scales = e.mul(scales, e.load_half(w, self.D, 16))
        for quarter in range(4):
            for half, quants in enumerate(e.halves(self._quants(e, w, quarter))):
                centred = e.sub(e.zext(quants, e.I32), e.constant(e.vector(e.I32, 32), 32))
                group = 4 * quarter + 2 * half
                spread = e.shuffle(scales, [group] * 16 + [group + 1] * 16)
                e.store(e.mul(e.float(centred), spread), out, 4 * (64 * quarter + 32 * half))

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        scales = [w.bytes(self.SCALES + 4 * k) for k in range(4)]
        totals = [e.shl(offset, 5) for offset in strip_offsets(e, xs, scales, signed=True)]
        for group in CRUMB_ORDER:
            scale = e.strip_scale(scales[group // 4], group % 4, signed=True)
            quants, inputs = self._strip_quants(e, w, group), range(16 * group, 16 * group + 16, 4)
            totals = e.strip_dot(totals, w.paced(quants), xs, inputs, scale, 63, w.wait)
        d = w.half(self.D)
        return add_strip(e, xs, [e.mul(e.float(total), d) for total in totals], sums)

    @staticmethod
    def _strip_quants(e: StripEmitter, w: Strip, group: int) -> Iterator[Value]:
        """The unsigned quants of a group of every row."""
        half, part, first = group // 8, group % 8 // 2, 16 * (group % 2)
        for i in range(first, first + 16, 4):
            low = e.shift_bytes(w.bytes(64 * half + 32 * (part % 2) + i), (-4 * (part // 2),), 15)
            yield e.bor(low, e.shift_bytes(w.bytes(128 + 32 * half + i), (4 - 2 * part,), 0x30))

    @staticmethod
    def _quants(e: Emitter, w: Value, quarter: int) -> Value:
        """The unsigned quants of values [64 quarter, 64 quarter + 64)."""
        half, part = divmod(quarter, 2)
        low = e.shift_bytes(e.load(w, 64 * half, e.bytes(64)), (-4 * part,), 15)
        high = e.doubled(e.load(w, 128 + 32 * half, e.bytes(32)))
        return e.bor(low, e.shift_bytes(high, (0, -2) if part else (4, 2), 0x30))
