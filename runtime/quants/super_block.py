"""What the K types share: super-blocks of 256 values against `q8_k` activations, one vector of running sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, LeafType, Value

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter


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
