"""Attention of many rows of one text whose heads are too wide for our own kernel: torch's, over the text's gathered blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch

from runtime.core import BLOCK_TOKENS
from runtime.execute.long_texts import SCORES
from runtime.layers.ops import Heads

Gather = Callable[[int, int], tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of tokens [first, end) of a text, (kv heads, tokens, size) in f16; `first` begins a block."""


def attend(q: torch.Tensor, gather: Gather, length: int, heads: Heads, sinks: torch.Tensor | None) -> torch.Tensor:
    """The last rows of a text of `length` tokens, (rows, heads * size): some at a time, so that their scores find room."""
    rows, kv = len(q), heads.head_count_kv
    query = q.view(rows, kv, heads.head_count // kv, heads.key_length).permute(1, 2, 0, 3) * heads.scale
    step = max(1, SCORES // (heads.head_count * length))
    firsts = range(0, rows, step)
    parts = [_part(query[:, :, first : first + step], gather, length - rows + first, heads, sinks) for first in firsts]
    return torch.cat(parts, 2).permute(2, 0, 1, 3).flatten(1)


def _part(query: torch.Tensor, gather: Gather, position: int, heads: Heads, sinks: torch.Tensor | None) -> torch.Tensor:
    """Rows from `position` on, (kv heads, group, rows, size), against what they see."""
    rows = query.shape[2]
    start = max(0, position + 1 - heads.window) // BLOCK_TOKENS * BLOCK_TOKENS if heads.window else 0
    end = position + rows
    key, value = (part[:, None].float() for part in gather(start, end))
    scores = query @ key.transpose(-1, -2)
    if heads.softcap:
        scores = torch.tanh(scores / heads.softcap) * heads.softcap
    own = torch.arange(position, end, device=query.device)[:, None]
    tokens = torch.arange(start, end, device=query.device)
    hidden = tokens > own
    if heads.window:
        hidden |= tokens <= own - heads.window
    scores.masked_fill_(hidden, -torch.inf)
    if sinks is not None:
        sink = sinks.view(*query.shape[:2], 1, 1).expand(-1, -1, rows, 1)
        return torch.cat((scores, sink), -1).softmax(-1)[..., :-1] @ value
    return scores.softmax(-1) @ value
