"""One step's numbers on the card: written into pinned memory, then copied there as a whole."""

from __future__ import annotations

import numpy as np
import torch

from runtime.core import Batch, IntArray

BUCKETS = (1, 2, 4, 8, 16)  # rows that graphs are captured for; a step of few rows counts as the next one of these


def bucket(rows: int) -> int:
    """The rows that buffers are made for."""
    return next((size for size in BUCKETS if rows <= size), rows)


class DeviceStep:
    """Buffers at fixed addresses, so that a captured graph can read them. Fields are views of one tensor on the device. A step
    has no more texts than outputs."""

    def __init__(self, rows: int, outputs: int, table: int, device: torch.device) -> None:
        by_row = dict.fromkeys(("tokens", "positions", "sequences", "lines"), rows)
        sizes = {"counts": 64, **by_row, "outputs": outputs, "tables": outputs * table}
        starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
        self._host = torch.zeros(sum(sizes.values()), dtype=torch.int32, pin_memory=device.type == "cuda")
        self._device = torch.zeros_like(self._host, device=device, pin_memory=False)
        self._numpy = {name: self._host.numpy()[starts[name] : starts[name] + size] for name, size in sizes.items()}
        view = {name: self._device[starts[name] : starts[name] + size] for name, size in sizes.items()}
        self.rows_count, self.outputs_count = view["counts"][0:1], view["counts"][1:2]
        self.tokens, self.positions, self.sequences = view["tokens"], view["positions"], view["sequences"]
        self.lines = view["lines"]  # of the batch's tables
        self.outputs, self.tables = view["outputs"], view["tables"]
        self.types = torch.zeros(rows, dtype=torch.int32, device=device)
        self.table = table
        self._tables_start = starts["tables"]
        self._most_texts = outputs

    def fill(self, batch: Batch, *, apart: bool) -> None:
        """Take a batch's numbers over; `upload` sends them. `apart`: every row has a table of its own, so that the tables of few
        rows are as few, whichever lines their texts have."""
        rows, outputs = len(batch.tokens), len(batch.outputs)
        self._numpy["counts"][:2] = rows, outputs
        self._numpy["tokens"][:rows] = batch.tokens
        self._numpy["positions"][:rows] = batch.positions
        self._numpy["lines"][:rows] = batch.sequences
        self._numpy["sequences"][:rows] = np.arange(rows) if apart else batch.sequences
        self._numpy["outputs"][:outputs] = batch.outputs
        tables: IntArray = self._numpy["tables"].reshape(self._most_texts, self.table)
        lines = batch.tables[batch.sequences] if apart else batch.tables
        tables[: len(lines), : lines.shape[1]] = lines

    def upload(self, sequences: int) -> None:
        """Copy to the device on the current stream: all but the tables of more sequences than there are."""
        end = self._tables_start + sequences * self.table
        self._device[:end].copy_(self._host[:end], non_blocking=True)
