"""How keys and values are kept: in f16, or in groups of 32 with a scale: GGUF's Q8_0 and Q4_0, laid out for attention.

What a key head has in one block of 64 tokens:

- keys in f16: (size, 64), transposed. Quantised, for each 32 dimensions: their quants, (32, 64) i8 or (16, 64) bytes whose low
  nibble is dimension i and whose high nibble is dimension i + 16, then the 64 scales in f16.
- values in f16: (64, size). Quantised: the quants, (64, size) i8 or (64, size / 2) bytes, 16 for each 32 values with nibbles as
  above, then the scales, (64, size / 32) f16.

A card has keys as it has values, token by token, and rows of f16 padded to a multiple of CARD_ROW values.

Vectors that are quantised are spread before (by Hadamard's transform, in `store`): otherwise a few large dimensions, which the
keys of many models have, would leave the others in their groups few levels.
"""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import numpy.typing as npt

from runtime.core import BLOCK_TOKENS, FloatArray

log = logging.getLogger(__name__)

GROUP = 32  # values with one scale
CARD_ROW = 8
Bytes = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """One way to keep them; `bits` of a value, its scale not counted."""

    name: str
    bits: int

    def fits(self, size: int) -> bool:
        """Whether heads of so many values can be kept so."""
        return self.bits == 16 or size % GROUP == 0

    def head_bytes(self, size: int) -> int:
        """Bytes of a head's keys, or values, in one block."""
        return BLOCK_TOKENS * (2 * size if self.bits == 16 else size // GROUP * (4 * self.bits + 2))

    def card_bytes(self, size: int) -> int:
        """The same on a card."""
        return self.head_bytes(-(-size // CARD_ROW) * CARD_ROW)

    def keys_of(self, head: Bytes, size: int) -> FloatArray:
        """The keys in `head` (head_bytes,), as they were stored: (64, size)."""
        if self.bits == 16:
            return head.view("<f2").reshape(size, BLOCK_TOKENS).T.astype(np.float32)
        groups = head.reshape(size // GROUP, -1)
        quants, scales = groups[:, : -2 * BLOCK_TOKENS], groups[:, -2 * BLOCK_TOKENS :].copy().view("<f2").astype(np.float32)
        values = self._integers(quants.reshape(len(groups), -1, BLOCK_TOKENS)) * scales[:, None]
        return values.reshape(size, BLOCK_TOKENS).T

    def values_of(self, head: Bytes, size: int) -> FloatArray:
        """The values in `head` (head_bytes,), as they were stored: (64, size)."""
        if self.bits == 16:
            return head.view("<f2").reshape(BLOCK_TOKENS, size).astype(np.float32)
        end = BLOCK_TOKENS * size * self.bits // 8
        quants, scales = head[:end].reshape(BLOCK_TOKENS * size // GROUP, -1, 1), head[end:].copy().view("<f2").astype(np.float32)
        return (self._integers(quants)[:, :, 0] * scales[:, None]).reshape(BLOCK_TOKENS, size)

    def _integers(self, quants: Bytes) -> FloatArray:
        """(groups, bytes of a group, n) -> (groups, 32, n)."""
        if self.bits == 8:
            return quants.view(np.int8).astype(np.float32)
        return np.concatenate([quants & 15, quants >> 4], 1).astype(np.float32) - 8


F16 = Kept("f16", 16)
KINDS = {kind.name: kind for kind in (F16, Kept("q8_0", 8), Kept("q4_0", 4))}


def fitting(name: str, *sizes: int) -> Kept:
    """The kind of that name; f16 where heads of these sizes do not fit it."""
    kind = KINDS[name]
    return kind if all(map(kind.fits, sizes)) else F16


def chosen(name: str, *sizes: int) -> Kept:
    """The same, with a word in the log where it is not the kind of that name."""
    kind = fitting(name, *sizes)
    if kind.name != name:
        log.warning("keys and values are kept in f16: %s has groups of %d, and the model's heads have %s", name, GROUP, sizes)
    return kind
