"""The likeliest tokens of each row of logits, which the card leaves in the host's memory by itself."""

from __future__ import annotations

import torch

from runtime.core import FloatArray, IntArray

LIST, LIST_ROOM, LIST_GROUPS = 64, 1024, 1024  # of runtime/cuda/source/shortlist.cu


class Shortlist:
    """Lists of up to `rows` rows."""

    def __init__(self, rows: int, *, pinned: bool) -> None:
        self.ids = torch.zeros((rows, LIST), dtype=torch.int32, pin_memory=pinned)
        self.logits = torch.zeros((rows, LIST), pin_memory=pinned)
        self.counts = torch.zeros(rows, dtype=torch.int32, pin_memory=pinned)

    def row(self, row: int) -> tuple[IntArray, FloatArray] | None:
        """Tokens and logits of a row, falling; None where too many are equal for a list."""
        if self.counts[row] > LIST_ROOM:
            return None
        ids: IntArray = self.ids[row].numpy()
        logits: FloatArray = self.logits[row].numpy()
        return ids, logits
