"""What attention over a long text takes on a card, for many rows at a time."""

from __future__ import annotations

from runtime.layers.ops import Heads

WIDEST_KEY, WIDEST_VALUE = 368, 256  # of a head that attend_many.cu takes: its shared memory, and its registers
SCORES = 1 << 24  # of a text that are held at a time for wider ones


def too_wide(heads: Heads) -> bool:
    """Whether attend_many.cu does not take such heads."""
    return heads.key_length > WIDEST_KEY or heads.value_length > WIDEST_VALUE


def text_bytes(heads: Heads, num_ctx: int) -> int:
    """Bytes that many rows of a text of so many tokens take beside the cache: keys and values gathered, and scores."""
    return 6 * heads.head_count_kv * num_ctx * (heads.key_length + heads.value_length) + 12 * SCORES if too_wide(heads) else 0
