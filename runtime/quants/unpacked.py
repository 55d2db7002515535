"""Blocks of 256 values that were taken apart: what prompts meet of types whose rows are costly to take apart (codebooks).

A block: u8 weight + offset [256], i8 scale [16] of 16 values each, f32 factor. Sixteen rows of such blocks (eight on AVX2) lie in
a strip that stays in the core's cache while many columns are multiplied with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants import BY_NAME
from runtime.quants.base import Bytes, QuantType, Value
from runtime.quants.laned import Laned, Rows
from runtime.quants.signed_block import SignedBlockType
from runtime.quants.strips import Strip, StripType, Woven
from runtime.quants.super_block import add_strip, strip_offsets

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter
    from runtime.kernels.vbmi import Avx512Vbmi

SCALES = 256
FACTOR = 272


class Unpacked(Woven):
    """Of weights below `offset`, a power of two, in magnitude: the smaller they are, the more products fit 16 bits together.
    `group`: how many of them have the same scale, 16 or 32."""

    activation = "q8_k"
    rounded = ""
    block_size = 256
    block_bytes = 276
    elements = (4,) * 69
    near = True
    long = True
    pays_from = 5

    def __init__(self, offset: int, group: int) -> None:
        self.name, self.offset, self.group = f"unpacked{offset}x{group}", offset, group

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        scales = [w.bytes(SCALES + 4 * k) for k in range(4)]
        offsets = strip_offsets(e, w, xs, scales, signed=True, together=self.group // 16)
        totals = [e.shl(offset, self.offset.bit_length() - 1) for offset in offsets]
        for first in range(0, self.block_size, self.group):
            scale = e.strip_scale(scales[first // 64], first % 64 // 16, signed=True)
            weights, inputs = (w.bytes(first + 4 * i) for i in range(self.group // 4)), range(first, first + self.group, 4)
            totals = e.strip_dot(totals, w.paced(weights), xs, inputs, scale, 2 * self.offset - 1, w.wait)
        factor = e.cast(w.dwords(FACTOR), e.floats(e.lanes))
        return add_strip(e, xs, [e.mul(e.float(total), factor) for total in totals], sums)


_FORMS = Unpacked(16, 16), Unpacked(16, 32), Unpacked(32, 32), Unpacked(64, 16), Unpacked(64, 32)
UNPACKED: dict[str, Unpacked] = {form.name: form for form in _FORMS}


def form_of(kind: QuantType) -> Unpacked | None:
    """How rows of that type are unpacked for prompts; None: they are not."""
    if not isinstance(kind, SignedBlockType) or isinstance(kind, StripType):
        return None
    return next(form for form in UNPACKED.values() if kind.magnitude < form.offset and form.group == kind.GROUP)


def signed_type(name: str) -> SignedBlockType:
    """The type of that name, which is unpacked."""
    kind = BY_NAME[name]
    assert isinstance(kind, SignedBlockType), name
    return kind


def unpack(kind: SignedBlockType, form: Unpacked, blocks: Bytes) -> Bytes:
    """(n, block_bytes) -> (n, 276)."""
    factors, scales, weights = kind.parts(blocks)
    parts = (weights + form.offset).astype(np.uint8), scales.astype(np.int8).view(np.uint8), factors.astype("<f4").view(np.uint8)
    return np.concatenate(parts, axis=1)


def emit_unpack_lanes(e: Avx512Vbmi, kind: SignedBlockType, form: Unpacked, blocks: Sequence[Value], out: Value) -> None:
    """Take the blocks of sixteen rows apart, each at one of `blocks`: a block of a strip."""
    assert isinstance(kind, Laned)
    rows = Rows(e, blocks, kind.RUNS)

    def weight(level: int, flag: int) -> int:
        return form.offset + kind.lane_weight(level, flag)

    flags = kind.emit_lane_flags(e, rows)
    parts = e.lane_entries(kind.levels(), kind.emit_lane_indices(e, rows), flags, weight)
    for number, part in enumerate(itertools.chain(parts, kind.emit_lane_scales(e, rows))):
        e.store(part, out, 64 * number)
    for number, block in enumerate(blocks):
        e.store(e.lane(kind.emit_factor(e, block, 4), 0), out, 16 * FACTOR + 4 * number)


def emit_unpack(e: Emitter, kind: SignedBlockType, form: Unpacked, w: Value, out: Value) -> None:
    """Take the block at `w` apart."""
    for quarter, weights in enumerate(kind.emit_weights(e, w)):
        e.store(e.add(weights, e.constant(weights.type, form.offset)), out, 64 * quarter)
    e.store(kind.emit_scales(e, w), out, SCALES)
    e.store(e.lane(kind.emit_factor(e, w, 4), 0), out, FACTOR)
