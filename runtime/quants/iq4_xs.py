"""IQ4_XS: eight groups of 32 nibbles that choose from the values of IQ4_NL, each with a 6-bit scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.iq4_nl import VALUES
from runtime.quants.nibbles import nibbles, strip_entries
from runtime.quants.signed_block import Integers, SignedBlockType
from runtime.quants.strips import Strip, StripType
from runtime.quants.super_block import add_strip, strip_offsets

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class IQ4_XS(SignedBlockType, StripType):
    # ggml-common.h block_iq4_xs: f16 d; u16 scales_h; u8 scales_l[4]; u8 qs[128].  value = d * (scale[group] - 32) * VALUES[q]
    # scale g: nibble g of scales_l, and above it bits 2g and 2g + 1 of scales_h; 16 bytes of qs a group, low nibbles first
    name = "IQ4_XS"
    type_id = 23
    block_bytes = 136
    elements = (2, 2) + (4,) * 33
    long = True
    opens = 17
    LARGEST = 127
    cuda = """
    int group = p >> 2, low = b[4 + (group >> 1)] >> 4 * (group & 1) & 15, upper = short_at(b + 2) >> 2 * group & 3;
    float d = half_at(b) * ((low | upper << 4) - 32);
    unsigned q[2];
    load8<8>(b + 8 + 16 * group + 8 * (p & 1), q);
    for (int i = 0; i < 2; i++) q[i] = lookup(IQ4_VALUES, q[i] >> 2 * (p & 2));
    scaled(w, q, d, -128 * d);
    """
    cuda_ints = """
    int low = b[4 + (p >> 1)] >> 4 * (p & 1) & 15, upper = short_at(b + 2) >> 2 * p & 3;
    unsigned packed[4];
    load16<8>(b + 8 + 16 * p, packed);
    lookup_nibbles(IQ4_VALUES, packed, o.q);
    o.d = half_at(b) * ((low | upper << 4) - 32);
    """

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
        high = (blocks[:, 2:4, None] >> np.array([0, 2, 4, 6], np.uint8) & 3).reshape(-1, 8)
        scales = (low | high << 4).astype(np.int8) - np.int8(32)
        weights = np.array(VALUES, np.int8)[nibbles(blocks[:, 8:].reshape(-1, 8, 16))]
        return halves(blocks[:, :2]), np.repeat(scales, 2, axis=1), weights

    def emit_factor(self, e: Emitter, w: Value, count: int) -> Value:
        return e.load_half(w, 0, count)

    def emit_scales(self, e: Emitter, w: Value) -> Value:
        low = e.shuffle(e.load(w, 4, e.bytes(4)), [group // 2 for group in range(8)] * 2)
        high = e.shuffle(e.load(w, 2, e.bytes(2)), [group // 4 for group in range(8)] * 2)
        low = e.band(e.builder.lshr(low, e.constant(low.type, [0, 4] * 8)), 15)
        high = e.shl(e.band(e.builder.lshr(high, e.constant(high.type, [0, 2, 4, 6] * 4)), 3), 4)
        scales = e.sub(e.bor(low, high), e.constant(low.type, 32))
        return e.shuffle(scales, [group for group in range(8) for _ in (0, 1)])

    def emit_weights(self, e: Emitter, w: Value) -> Iterator[Value]:
        return (self._quarter(e, w, quarter) for quarter in range(4))

    @staticmethod
    def _quarter(e: Emitter, w: Value, quarter: int) -> Value:
        packed = e.load(w, 8 + 32 * quarter, e.bytes(32))
        both = e.shuffle(packed, [*range(16)] * 2 + [*range(16, 32)] * 2)
        return e.lookup(VALUES, e.shift_bytes(both, (0, -4, 0, -4), 15))

    def pinned(self, e: StripEmitter) -> bool:
        return e.registers == 32

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        scales = [self._strip_scales(e, w, half) for half in (0, 1)]
        totals = [e.zero(e.vector(e.I32, e.lanes)) for _ in xs]
        if e.signed_offset:
            doubled = [e.strip_twice(scales[half], first) for half in (0, 1) for first in (0, 2)]
            totals = [e.mul(offset, e.signed_offset) for offset in strip_offsets(e, w, xs, doubled, signed=True)]
        table = [value + e.signed_offset for value in VALUES]
        for group in range(8):
            scale = w.made(e.strip_scale(scales[group // 4], group % 4, signed=True))
            weights = strip_entries(e, w, 8 + 16 * group, table)
            inputs = range(32 * group, 32 * group + 32, 4)
            totals = e.strip_dot_signed(totals, w.paced(weights), xs, inputs, scale, w.wait)
        d = w.half(0)
        return add_strip(e, xs, [e.mul(e.float(total), d) for total in totals], sums)

    @staticmethod
    def _strip_scales(e: StripEmitter, w: Strip, half: int) -> Value:
        """Scales of groups 4 half to 4 half + 3 of every row, <4 lanes x i8>."""
        low = e.strip_bytes(w.bytes(4), (2 * half, 2 * half, 2 * half + 1, 2 * half + 1))
        low = e.bor(e.band(low, (15, 0) * (2 * e.lanes)), e.band(e.shift_bytes(low, (-4,), 255), (0, 15) * (2 * e.lanes)))
        high = e.strip_bytes(e.cast(e.zext(w.words(2), e.I32), low.type), (half,) * 4)
        for place, shift in enumerate((4, 2, 0, -2)):
            mask = [0x30 if byte == place else 0 for byte in range(4)] * e.lanes
            low = e.bor(low, e.band(e.shift_bytes(high, (shift,), 255), mask))
        return e.sub(low, e.constant(low.type, 32))
