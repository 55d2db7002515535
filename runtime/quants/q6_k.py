"""Q6_K: sixteen groups of 16 six-bit quants, 32 subtracted, each with a signed 8-bit scale."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.activations import Q8K
from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.strips import Strip, StripType
from runtime.quants.super_block import StripScales, SuperBlockType, add_strip, load_half

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class Q6_K(SuperBlockType, StripType):
    # ggml-common.h block_q6_K: u8 ql[128]; u8 qh[64]; i8 scales[16]; f16 d.  value = d * scale[group] * (q - 32)
    # Each half of 128 values has 64 bytes of ql (low nibbles: values 0-63, high: 64-127) and 32 bytes of qh, whose
    # byte i holds the upper two bits of values i, 32 + i, 64 + i and 96 + i, from its lowest bits on.
    # In strips a group of 16 is 12 bytes: three times four quants, and in the upper two bits of each byte two of the last four
    # quants', the lowest first: fewer operations to take apart, and read in the order of addresses.
    name = "Q6_K"
    type_id = 14
    block_bytes = 210
    elements = (4,) * 52 + (2,)
    long = True
    opens = 25
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
    cuda_scales = 16

    def dequantize(self, blocks: Bytes) -> Floats:
        scales = halves(blocks[:, self.D :]) * blocks[:, self.SCALES : self.D].view(np.int8).astype(np.float32)
        quants = self._unsigned(blocks).astype(np.int8) - np.int8(32)
        values: Floats = scales[:, :, None] * quants.reshape(-1, 16, 16).astype(np.float32)
        return values.reshape(-1, self.block_size)

    @staticmethod
    def _unsigned(blocks: Bytes) -> Bytes:
        """(n, block_bytes) -> (n, 256), the unsigned quants."""
        low, high = blocks[:, :128].reshape(-1, 2, 64), blocks[:, 128:192].reshape(-1, 2, 1, 32)
        nibbles = np.stack([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
        upper = high >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
        quants: Bytes = nibbles | upper << 4
        return quants.reshape(-1, 256)

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

    def arranged(self, blocks: Bytes) -> Bytes:
        quants = self._unsigned(blocks).reshape(-1, 16, 4, 4)
        packed = quants[:, :, :3] | quants[:, :, 3:] << np.array([6, 4, 2], np.uint8)[:, None] & 0xC0
        return np.concatenate([packed.reshape(-1, self.SCALES), blocks[:, self.SCALES :]], axis=1)

    def emit_arranged(self, e: Emitter, w: Value, scratch: Value) -> Value:
        for quarter in range(4):
            quants = e.cast(self._quants(e, w, quarter), e.vector(e.I32, 16))  # four groups of four dwords
            fourths = e.shl(e.shuffle(quants, [4 * k + 3 for k in range(4) for _ in range(4)]), [6, 4, 2, 0] * 4)
            packed = e.bor(quants, e.band(fourths, [0xC0C0C0C0, 0xC0C0C0C0, 0xC0C0C0C0, 0] * 4))
            e.store(e.shuffle(packed, [lane for lane in range(16) if lane % 4 < 3]), scratch, 48 * quarter)
        e.store(e.load(w, self.SCALES, e.bytes(16)), scratch, self.SCALES)
        e.store(e.load(w, self.D, e.I16), scratch, self.D)
        return scratch

    def emit_restored(self, e: Emitter, w: Value) -> None:
        quarters = [self._restored(e, e.load(w, 48 * quarter, e.vector(e.I32, 12))) for quarter in range(4)]
        for half, (first, second) in enumerate((quarters[:2], quarters[2:])):
            e.store(e.bor(e.band(first, 15), e.shift_bytes(second, (4,), 0xF0)), w, 64 * half)
            parts = [*e.halves(first), *e.halves(second)]
            crumbs = [e.shift_bytes(part, (2 * k - 4,), 3 << 2 * k) for k, part in enumerate(parts)]
            e.store(functools.reduce(e.bor, crumbs), w, 128 + 32 * half)

    def pinned(self, e: StripEmitter) -> bool:
        return e.registers == 16

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        scales = StripScales(e, w, xs, [w.bytes(self.SCALES + 4 * k) for k in range(4)], 5)
        totals = scales.starts()
        for group in range(16):
            quants, inputs = self._strip_quants(e, w, group), range(16 * group, 16 * group + 16, 4)
            totals = e.strip_dot(totals, w.paced(quants), xs, inputs, scales[group], 63, w.wait)
        d = w.half(self.D)
        return add_strip(e, xs, [e.mul(e.float(total), d) for total in scales.ends(totals)], sums)

    @staticmethod
    def _strip_quants(e: StripEmitter, w: Strip, group: int) -> Iterator[Value]:
        """The unsigned quants of a group of every row."""
        packed = [w.bytes(12 * group + 4 * i) for i in range(3)]
        yield from (e.band(four, 63) for four in packed)
        fourth = e.zero(packed[0].type)
        for four in packed:
            fourth = e.shift_bytes(e.bor(fourth, e.band(four, 0xC0)), (-2,), 0xFF)
        yield fourth

    @staticmethod
    def _restored(e: Emitter, packed: Value) -> Value:
        """64 unsigned quants from twelve dwords of a strip's order."""
        crumbs = e.band(e.shr(packed, [6, 4, 2] * 4), [0x03030303, 0x0C0C0C0C, 0x30303030] * 4)
        fourths = functools.reduce(e.bor, [e.shuffle(crumbs, [3 * k + part for k in range(4)] * 3) for part in range(3)])
        order = [12 + k if i == 3 else 3 * k + i for k in range(4) for i in range(4)]
        return e.cast(e.shuffle(e.band(packed, 0x3F3F3F3F), order, fourths), e.bytes(64))

    @staticmethod
    def _quants(e: Emitter, w: Value, quarter: int) -> Value:
        """The unsigned quants of values [64 quarter, 64 quarter + 64)."""
        half, part = divmod(quarter, 2)
        low = e.shift_bytes(e.load(w, 64 * half, e.bytes(64)), (-4 * part,), 15)
        high = e.doubled(e.load(w, 128 + 32 * half, e.bytes(32)))
        return e.bor(low, e.shift_bytes(high, (0, -2) if part else (4, 2), 0x30))
