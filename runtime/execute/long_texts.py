"""What attention over a long text takes on a card, for many rows at a time."""

from __future__ import annotations

from runtime.layers.ops import Heads

FUSED_HEAD = 256  # values of a head that torch's fused attention takes
SCORES = 1 << 24  # of a text that are held at a time where it does not


def is_plain(heads: Heads) -> bool:
    """Whether torch's fused attention takes such heads."""
    return not heads.window and not heads.softcap and heads.key_length <= FUSED_HEAD


def text_bytes(heads: Heads, num_ctx: int) -> int:
    """Bytes that many rows of a text of so many tokens take beside the cache: its keys and values, gathered, and scores."""
    if is_plain(heads):
        return 2 * heads.head_count * num_ctx * (heads.key_length + heads.value_length)
    return 6 * heads.head_count_kv * num_ctx * (heads.key_length + heads.value_length) + 12 * SCORES
