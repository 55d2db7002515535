"""Quants of 32 values that lie as 16 bytes of nibbles, low ones first, with or without a word of fifth bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Value

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter
    from runtime.quants.strips import Strip


def nibbles(packed: Bytes) -> Bytes:
    """(..., 16) -> (..., 32): the low nibbles, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def fifth_bits(packed: Bytes) -> Bytes:
    """(n, 4) -> (n, 32): 16 where a bit is set, 0 elsewhere."""
    return np.unpackbits(packed, axis=1, bitorder="little") << np.uint8(4)


def emit_nibbles(e: Emitter, w: Value, offset: int) -> Value:
    """`nibbles` of the 16 bytes at `offset`, <32 x i8>."""
    return e.shift_bytes(e.doubled(e.load(w, offset, e.bytes(16))), (0, -4), 15)


def emit_fifth_bits(e: Emitter, w: Value, offset: int) -> Value:
    """`fifth_bits` of the 4 bytes at `offset`, <32 x i8>."""
    return e.band(e.mask(e.load(w, offset, e.I32)), 16)


def strip_nibbles(e: StripEmitter, w: Strip, offset: int) -> Iterator[Value]:
    """`nibbles` of the 16 bytes at `offset` of every row, eight <4 lanes x i8>."""
    return (e.shift_bytes(w.bytes(offset + 4 * i), (-shift,), 15) for shift in (0, 4) for i in range(4))


def strip_entries(e: StripEmitter, w: Strip, offset: int, table: Sequence[int]) -> Iterator[Value]:
    """The entries of a table of sixteen bytes at `strip_nibbles`."""
    return (e.lookup_nibbles(table, w.bytes(offset + 4 * i), upper=upper) for upper in (False, True) for i in range(4))


def strip_fifth_bits(e: StripEmitter, w: Strip, offset: int) -> Iterator[Value]:
    """`fifth_bits` of the four bytes at `offset` of every row, eight <4 lanes x i8>."""
    for i in range(8):
        spread = e.strip_bytes(w.bytes(offset), (i // 2,) * 4)
        bit = [1 << 4 * (i % 2) + place for place in range(4)] * e.lanes
        yield e.band(e.mask_of(e.band(spread, bit)), 16)
