"""What the K types share: super-blocks of 256 values against `q8_k` activations, one vector of running sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.activations import Q8K
from runtime.quants.base import Bytes, Floats, LeafType, Value
from runtime.quants.strips import Strip

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class SuperBlockType(LeafType):
    block_size = 256
    activation = "q8_k"

    def start(self, e: Emitter) -> list[Value]:
        return [e.zero(e.floats(e.lanes))]

    def finish(self, e: Emitter, sums: list[Value]) -> Value:
        return e.sum(sums[0])


def load_half(e: Emitter, x: Value, half: int) -> list[Value]:
    """Activations [128 half, 128 half + 128) of a block as two <64 x i8>."""
    return [e.load(x, 128 * half + offset, e.bytes(64)) for offset in (0, 64)]


def scales_and_mins(packed: Bytes) -> tuple[Floats, Floats]:
    """The 12 bytes of 6-bit scales and mins of Q4_K and Q5_K: (n, 12) -> two (n, 8).

    Bytes 0-3 hold scales 0-3 and bytes 4-7 mins 0-3 in their low six bits; bytes 8-11 hold the low nibbles of scales 4-7
    (low nibble) and mins 4-7 (high nibble), whose upper two bits are the top bits of bytes 0-3 and 4-7.
    """
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    mins = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    return scales.astype(np.float32), mins.astype(np.float32)


def emit_scales_and_mins(e: Emitter, head: Value) -> Value:
    """The block's first 16 bytes (<4 x i32>: d and dmin, then the 12 bytes) -> <16 x i8>, 8 scales and 8 mins."""
    parts = e.shuffle(head, [1, 1, 2, 2])
    parts = e.band(e.shr(parts, [0, 2, 0, 2]), [0x3F3F3F3F, 0x30303030] * 2)
    nibbles = e.band(e.shr(e.shuffle(head, [3, 3, 3, 3]), [0, 0, 0, 4]), [0, 0x0F0F0F0F] * 2)
    return e.cast(e.bor(parts, nibbles), e.bytes(16))


def strip_scales_and_mins(e: StripEmitter, w: Strip) -> tuple[list[Value], list[Value]]:
    """Those of every row of a strip: bytes of groups 0-3 and 4-7, two <4 lanes x i8> each."""
    first, second, third = (w.bytes(offset) for offset in (4, 8, 12))
    scales = [e.band(first, 63), e.bor(e.band(third, 15), e.shift_bytes(first, (-2,), 0x30))]
    mins = [e.band(second, 63), e.bor(e.shift_bytes(third, (-4,), 15), e.shift_bytes(second, (-2,), 0x30))]
    return scales, mins


def strip_offsets(
    e: StripEmitter, w: Strip, xs: Sequence[Value], scales: Sequence[Value], *, signed: bool, together: int = 1
) -> list[Value]:
    """For each column the sum of (scale times minus the sum of the inputs) over a block's sixteen groups, <lanes x i32>.

    `scales`: bytes of four groups each; `together`: of so many groups in a row, 1 or 2, they are equal."""
    totals = [e.zero(e.vector(e.I32, e.lanes)) for _ in xs]
    sums = Q8K.SUMS if together == 1 else Q8K.PAIRS
    for pair in range(8 // together):
        four, first = divmod(2 * together * pair, 4)
        both = w.made(e.strip_pairs(scales[four], first, first + together, signed=signed))
        totals = [e.strip_madd(total, both, x, sums + 4 * pair) for total, x in zip(totals, xs, strict=True)]
    return totals


class StripScales:
    """The signed scales of the sixteen groups of a strip's block, as `strip_dot` takes them, and the sums that these add to.

    `scales`: bytes of four groups each; `shift`: of quants, which are 2^shift more than what they stand for, see `strip_offsets`.
    One column has that added up as scales are asked for where both need the same pairs.
    """

    def __init__(self, e: StripEmitter, w: Strip, xs: Sequence[Value], scales: Sequence[Value], shift: int) -> None:
        self._e, self._w, self._xs, self._scales, self._shift = e, w, xs, scales, shift
        self._alone = len(xs) == 1 and e.scales_are_pairs
        self._made: dict[int, Value] = {}
        self._offset = e.zero(e.vector(e.I32, e.lanes))

    def starts(self) -> list[Value]:
        """The sums of the columns before the first group."""
        if self._alone:
            return [self._offset]
        return [self._e.shl(offset, self._shift) for offset in self._offsets()]

    def __getitem__(self, group: int) -> Value:
        four, place = self._scales[group // 4], group % 4
        if not self._alone:
            return self._w.made(self._e.strip_scale(four, place, signed=True))
        if group not in self._made:
            first = group - group % 2
            pairs, self._made[first], self._made[first + 1] = self._e.strip_scales(four, first % 4)
            self._offset = self._e.strip_madd(self._offset, pairs, self._xs[0], Q8K.SUMS + 2 * first)
        return self._made[group]

    def _offsets(self) -> list[Value]:
        return strip_offsets(self._e, self._w, self._xs, self._scales, signed=True)

    def ends(self, totals: Sequence[Value]) -> list[Value]:
        """The sums after the last group."""
        return [self._e.add(total, self._e.shl(self._offset, self._shift)) if self._alone else total for total in totals]


def add_strip(e: StripEmitter, xs: Sequence[Value], values: Sequence[Value], sums: Sequence[Value]) -> list[Value]:
    """Running sums of a strip with a block's `values`, one for each column, times the activations' scale."""
    return [
        e.fma(value, e.load_splat(x, Q8K.SCALE, e.F32, e.lanes), total) for x, value, total in zip(xs, values, sums, strict=True)
    ]
