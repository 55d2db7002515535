"""Blocks of 256 values that were taken apart: what prompts meet of types whose rows are costly to take apart (codebooks).

A block: u8 weight + offset [256], i8 scale [16] of 16 values each, f32 factor. Sixteen rows of such blocks (eight on AVX2) lie in
a strip that stays in the core's cache while many columns are multiplied with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants import BY_NAME
from runtime.quants.base import Bytes, QuantType, Value
from runtime.quants.signed_block import SignedBlockType
from runtime.quants.strips import Strip, StripType, Woven
from runtime.quants.super_block import add_strip, strip_offsets

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter

SCALES = 256
FACTOR = 272


class Unpacked(Woven):
    """Of weights below `offset`, a power of two, in magnitude: the smaller they are, the more products fit 16 bits together."""

    activation = "q8_k"
    rounded = ""
    block_size = 256
    block_bytes = 276
    elements = (4,) * 69
    near = True

    def __init__(self, offset: int) -> None:
        self.name, self.offset = f"unpacked{offset}", offset

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        scales = [w.bytes(SCALES + 4 * k) for k in range(4)]
        totals = [e.shl(offset, self.offset.bit_length() - 1) for offset in strip_offsets(e, xs, scales, signed=True)]
        for group in range(16):
            scale = e.strip_scale(scales[group // 4], group % 4, signed=True)
            weights, inputs = (w.bytes(16 * group + 4 * i) for i in range(4)), range(16 * group, 16 * group + 16, 4)
            totals = e.strip_dot(totals, w.paced(weights), xs, inputs, scale, 2 * self.offset - 1, w.wait)
        factor = e.cast(w.dwords(FACTOR), e.floats(e.lanes))
        return add_strip(e, xs, [e.mul(e.float(total), factor) for total in totals], sums)


UNPACKED: dict[str, Unpacked] = {form.name: form for form in (Unpacked(16), Unpacked(64))}


def form_of(kind: QuantType) -> Unpacked | None:
    """How rows of that type are unpacked for prompts; None: they are not."""
    if not isinstance(kind, SignedBlockType) or isinstance(kind, StripType):
        return None
    return next(form for form in UNPACKED.values() if kind.magnitude < form.offset)


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


def emit_unpack(e: Emitter, kind: SignedBlockType, form: Unpacked, w: Value, out: Value) -> None:
    """Take the block at `w` apart."""
    for quarter, weights in enumerate(kind.emit_weights(e, w)):
        e.store(e.add(weights, e.constant(weights.type, form.offset)), out, 64 * quarter)
    e.store(kind.emit_scales(e, w), out, SCALES)
    e.store(e.lane(kind.emit_factor(e, w, 4), 0), out, FACTOR)
