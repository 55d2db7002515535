"""Two-bit quants of a super-block, as Q2_K, Q3_K and TQ2_0 pack them: 64 bytes for 256 values.

Each 32 bytes hold 128 values: the lowest two bits of the bytes are values 0-31, the next two 32-63, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Value

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter
    from runtime.quants.strips import Strip

CRUMB_ORDER = tuple(8 * half + 2 * part + odd for half in (0, 1) for odd in (0, 1) for part in range(4))
"""The groups of 16 values in such an order that those which lie in the same bytes follow one another."""


def crumbs(packed: Bytes) -> Bytes:
    """(n, 64) -> (n, 256)"""
    shifted = packed.reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    return (shifted & np.uint8(3)).reshape(-1, 256)


def emit_crumbs(e: Emitter, w: Value, offset: int, quarter: int) -> Value:
    """Values [64 quarter, 64 quarter + 64) of the 64 bytes at `offset`, <64 x i8>."""
    half, part = divmod(quarter, 2)
    packed = e.doubled(e.load(w, offset + 32 * half, e.bytes(32)))
    return e.shift_bytes(packed, (-4 * part, -4 * part - 2), 3)


def strip_crumbs(e: StripEmitter, w: Strip, offset: int, group: int) -> Iterator[Value]:
    """The sixteen values of a group of every row, four <4 lanes x i8>."""
    half, part, first = group // 8, group % 8 // 2, 16 * (group % 2)
    return (e.shift_bytes(w.bytes(offset + 32 * half + i), (-2 * part,), 3) for i in range(first, first + 16, 4))
