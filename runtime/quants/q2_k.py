"""Q2_K: sixteen groups of 16 two-bit quants, each with a 4-bit scale and a 4-bit min."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.activations import Q8K
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.crumbs import CRUMB_ORDER, crumbs, emit_crumbs, strip_crumbs
from runtime.quants.strips import Strip, StripType
from runtime.quants.super_block import SuperBlockType, add_strip, load_half, strip_offsets

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class Q2_K(SuperBlockType, StripType):
    # ggml-common.h block_q2_K: u8 scales[16]; u8 qs[64]; f16 d; f16 dmin.  value = d * scale[group] * q - dmin * min[group]
    # low nibbles of `scales` are the scales, high ones the mins; qs: see crumbs.py
    name = "Q2_K"
    type_id = 10
    block_bytes = 84
    elements = (4,) * 20 + (2, 2)
    long = True
    opens = 26
    QUANTS = 16
    D = 80
    cuda = """
    int packed = b[p >> 1];
    unsigned q[2];
    load8<4>(b + 16 + 32 * (p >> 4) + 8 * (p & 3), q);
    for (int i = 0; i < 2; i++) q[i] = q[i] >> (p >> 1 & 6) & 0x03030303;
    scaled(w, q, half_at(b + 80) * (packed & 15), -half_at(b + 82) * (packed >> 4));
    """
    cuda_ints = """
    unsigned packed[4], group = 4 * (p >> 1) + (p & 1), scales = b[group] | b[group + 2] << 8;
    load16<4>(b + 16 + 32 * (p >> 2) + 16 * (p & 1), packed);
    for (int i = 0; i < 8; i++) o.q[i] = packed[i & 3] >> 2 * (p & 2) + 2 * (i >> 2) & 0x03030303;
    o.scales = scales & 0x0f0f, o.minimums = scales >> 4 & 0x0f0f;
    o.d = half_at(b + 80), o.least = -half_at(b + 82);
    """
    cuda_form = "SCALED"
    cuda_step = 32
    cuda_scales = 16

    def dequantize(self, blocks: Bytes) -> Floats:
        d, dmin = halves(blocks[:, 80:82]), halves(blocks[:, 82:])
        scales, mins = (part.astype(np.float32) for part in (blocks[:, :16] & 15, blocks[:, :16] >> 4))
        quants = crumbs(blocks[:, self.QUANTS : self.D]).reshape(-1, 16, 16).astype(np.float32)
        values: Floats = (d * scales)[:, :, None] * quants - (dmin * mins)[:, :, None]
        return values.reshape(-1, self.block_size)

    def emit_dot(self, e: Emitter, w: Value, xs: Sequence[Value], sums: Sequence[list[Value]], count: int) -> list[list[Value]]:
        scales, mins = self._scales_and_mins(e, w)
        totals = [e.zero(e.vector(e.I32, e.lanes)) for _ in xs]
        for half, spread in enumerate(e.lane_scales(scales, range(16), signed=False)):
            quants = [emit_crumbs(e, w, self.QUANTS, quarter) for quarter in (2 * half, 2 * half + 1)]
            totals = e.dot_scaled(totals, quants, [load_half(e, x, half) for x in xs], spread)
        d, dmin = (e.load_half(w, offset, e.lanes) for offset in (self.D, self.D + 2))
        results = []
        for x, total, column in zip(xs, totals, sums, strict=True):
            offset = e.to_lanes(e.madd16(e.zext(mins, e.I16), e.load(x, Q8K.SUMS, e.vector(e.I16, 16))))
            value = e.fma(e.float(offset), dmin, e.mul(e.float(total), d))
            results.append([e.fma(value, e.load_splat(x, Q8K.SCALE, e.F32, e.lanes), column[0])])
        return results

    def pinned(self, e: StripEmitter) -> bool:
        return e.registers == 32

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        packed = [w.bytes(4 * k) for k in range(4)]
        offsets = strip_offsets(e, w, xs, [e.shift_bytes(four, (-4,), 15) for four in packed], signed=False)
        totals = [e.zero(e.vector(e.I32, e.lanes)) for _ in xs]
        for group in CRUMB_ORDER:
            scale = w.made(e.strip_scale(e.band(packed[group // 4], 15), group % 4))
            quants = strip_crumbs(e, w, self.QUANTS, group)
            totals = e.strip_dot(totals, w.paced(quants), xs, range(16 * group, 16 * group + 16, 4), scale, 3, w.wait)
        d, dmin = w.half(self.D), w.half(self.D + 2)
        values = [e.fma(e.float(o), dmin, e.mul(e.float(t), d)) for o, t in zip(offsets, totals, strict=True)]
        return add_strip(e, xs, values, sums)

    def emit_dequantize(self, e: Emitter, w: Value, out: Value, count: int) -> None:
        d, dmin = (e.load_half(w, offset, 16) for offset in (self.D, self.D + 2))
        scales, mins = (e.float(e.zext(part, e.I32)) for part in self._scales_and_mins(e, w))
        scales, mins = e.mul(scales, d), e.mul(mins, dmin)
        for quarter in range(4):
            for half, quants in enumerate(e.halves(emit_crumbs(e, w, self.QUANTS, quarter))):
                group = 4 * quarter + 2 * half
                lanes = [group] * 16 + [group + 1] * 16
                scaled = e.mul(e.float(e.zext(quants, e.I32)), e.shuffle(scales, lanes))
                e.store(e.sub(scaled, e.shuffle(mins, lanes)), out, 4 * 16 * group)

    @staticmethod
    def _scales_and_mins(e: Emitter, w: Value) -> tuple[Value, Value]:
        packed = e.load(w, 0, e.bytes(16))
        return e.band(packed, 15), e.shift_bytes(packed, (-4,), 15)
