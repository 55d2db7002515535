"""What the IQ2 and IQ3 types share: magnitudes looked up in a grid, and signs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from runtime.quants.base import Bytes, Value
from runtime.quants.grids import grid
from runtime.quants.signed_block import Integers

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter

Indices = npt.NDArray[np.integer]

# Signs of 8 values in 7 bits: bit i for value i, and the last is such that the number of minus signs is even.
_SEVEN = np.arange(128, dtype=np.uint8)
_ODD = 0x6996  # bit n: whether n has an odd number of bits
_EIGHT = _SEVEN | (np.unpackbits(_SEVEN[:, None], axis=1).sum(axis=1, dtype=np.uint8) & np.uint8(1)) << np.uint8(7)


def packed_signs(indices: Indices) -> Bytes:
    """Seven bits (..., n) -> eight sign bits each."""
    signs: Bytes = _EIGHT[indices]
    return signs


def signed_entries(name: str, indices: Indices, signs: Bytes) -> Integers:
    """Entries of a grid in order, with the signs that the bits of `signs` (n, 32) give: (n, 256)."""
    magnitudes = grid(name)[indices].reshape(len(indices), 256)
    negative = np.unpackbits(signs, axis=1, bitorder="little").astype(bool)
    return np.where(negative, -magnitudes, magnitudes)


def nibble_scales(packed: Bytes) -> Bytes:
    """(n, count) -> (n, 2 count): nibbles, the low ones first."""
    return np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), -1)


def emit_nibble_scales(e: Emitter, w: Value, offset: int, count: int) -> Value:
    """2 q + 1 for the nibbles q of `count` bytes at `offset`, low ones first."""
    packed = e.load(w, offset, e.bytes(count))
    low, high = e.band(packed, 15), e.builder.lshr(packed, e.constant(packed.type, 4))
    return emit_odd(e, e.shuffle(low, [lane for i in range(count) for lane in (i, count + i)], high))


def emit_odd(e: Emitter, values: Value) -> Value:
    """2 v + 1"""
    return e.bor(e.shl(values, 1), 1)


def emit_entries(e: Emitter, name: str, indices: Sequence[Value]) -> Value:
    """Entries of a grid at eight or sixteen indices (i64), <64 x i8>."""
    entries = grid(name)
    table = e.table(f"grid_{name}", list(entries.tobytes()))
    element = e.I64 if entries.shape[1] == 8 else e.I32
    return e.cast(e.gather(table, element, indices), e.bytes(64))


def emit_packed_signs(e: Emitter, words: Sequence[tuple[Value, Sequence[int]]]) -> Value:
    """Eight times seven bits, from some bits of each word (i64) on -> <64 x i8>, -1 for a minus sign and 0."""
    if e.register == 64:
        return _emit_parities(e, words)
    indices = [emit_field(e, word, first, 127) for word, firsts in words for first in firsts]
    masks = -np.unpackbits(_EIGHT[:, None], axis=1, bitorder="little").astype(np.int8)
    table = e.table("packed_signs", list(masks.tobytes()))
    return e.cast(e.gather(table, e.I64, indices), e.bytes(64))


def _emit_parities(e: Emitter, words: Sequence[tuple[Value, Sequence[int]]]) -> Value:
    """The same without a table, which costs more where a register holds all 64."""
    parts = [e.trunc(e.shr(e.splat(word, len(firsts)), firsts), e.I32) for word, firsts in words]
    indices = e.band(parts[0] if len(parts) == 1 else e.concat(*parts), 127)
    nibbles = e.band(e.xor(indices, e.shr(indices, 4)), 15)
    odd = e.builder.lshr(e.constant(indices.type, _ODD), nibbles)
    return e.spread_mask(e.bor(indices, e.band(e.shl(odd, 7), 128)))


def emit_signed(e: Emitter, magnitudes: Value, mask: Value) -> Value:
    """Magnitudes, negated where the mask is -1."""
    return e.sub(e.xor(magnitudes, mask), mask)


def emit_byte(e: Emitter, w: Value, offset: int) -> Value:
    """The byte at `offset` as i64."""
    return e.zext(e.load(w, offset, e.I8), e.I64)


def emit_field(e: Emitter, word: Value, first: int, mask: int) -> Value:
    """The bits of `mask` from bit `first` on."""
    return e.band(e.shr(word, first), mask)


def emit_upper(e: Emitter, w: Value, offset: int, word: Value, firsts: Sequence[int], mask: int) -> list[Value]:
    """Eight indices of more than 8 bits (i64): the bytes at `offset`, and above each the bits of `mask` of `word` (i32) from one
    of `firsts` on."""
    if e.register < 64:
        wide = e.zext(word, e.I64)
        upper = [e.shl(emit_field(e, wide, first, mask), 8) for first in firsts]
        return [e.bor(emit_byte(e, w, offset + i), high) for i, high in enumerate(upper)]
    low = e.zext(e.load(w, offset, e.bytes(8)), e.I16)
    upper = e.trunc(e.band(e.shr(e.splat(word, 8), firsts), mask), e.I16)
    return e.unpacked(e.bor(low, e.shl(upper, 8)))
