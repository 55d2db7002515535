"""How keys and values are kept on the CPU: in 16 bits, or in groups of 32 with a scale (GGUF's Q8_0 and Q4_0), laid out for
attention.

What a key head has in one block of 64 tokens:

- in 16 bits ("f16", for that is what it replaces, and what a card has): whole numbers, of which a key or a value has one scale.
  Neighbours that one sum adds stand together, so that one instruction multiplies and adds both: keys are (size / 2, 64, 2), two
  dimensions of each token, and values (32, size, 2), two tokens of each dimension. Then the 64 scales in f32. An odd size has one
  more dimension, of zeros.
- quantised keys, for each 32 dimensions: their quants, (32, 64) i8 or (16, 64) bytes whose low nibble is dimension i and whose
  high nibble is dimension i + 16, then the 64 scales in f16.
- quantised values: the quants, (64, size) i8 or (64, size / 2) bytes, 16 for each 32 values with nibbles as above, then the
  scales, (64, size / 32) f16.

No sum of products of 16 bits leaves 32 bits: keys and queries have lengths (the root of the sum of squares) of at most LENGTH, so
that no part of their product is more than LENGTH**2; no number of a value is more than VALUE, and the weights of a block are at
most WEIGHTS together. Keys and values are rounded to f16 before, which loses twice as much: of 128 dimensions that are alike each
has 4,000 levels either side of zero.

A card has f16, keys as it has values, token by token, and rows padded to a multiple of CARD_ROW values.

Vectors that are quantised are spread before (by Hadamard's transform, in `store`): otherwise a few large dimensions, which the
keys of many models have, would leave the others in their groups few levels.
"""

from __future__ import annotations

import dataclasses
import logging

from runtime.core import BLOCK_TOKENS

log = logging.getLogger(__name__)

GROUP = 32  # values with one scale
CARD_ROW = 8
LARGEST = 32700  # of whole numbers; all of these a little below what there is room for, since rounding adds to lengths and sums
LENGTH, VALUE, WEIGHTS = 46000, 7900, 260000


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
        return BLOCK_TOKENS * (2 * (size + size % 2) + 4 if self.bits == 16 else size // GROUP * (4 * self.bits + 2))

    def card_bytes(self, size: int) -> int:
        """The same on a card."""
        padded = -(-size // CARD_ROW) * CARD_ROW
        return BLOCK_TOKENS * 2 * padded if self.bits == 16 else self.head_bytes(padded)


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
