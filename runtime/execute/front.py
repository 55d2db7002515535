"""The first layers of a model on the CPU, where a card has no room for all of them or the user wants fewer there."""

from __future__ import annotations

import dataclasses
import time

import torch

from runtime.core import Batch
from runtime.execute.recorded import Recorded
from runtime.execute.recorder import Recorder
from runtime.execute.step import Limits
from runtime.kernels.kept import F16, Kept
from runtime.kernels.leaves import Leaves
from runtime.models.transformer import Transformer


@dataclasses.dataclass(frozen=True, slots=True)
class FrontSize:
    """How large a front is made."""

    layers: int  # from the first
    limits: Limits
    threads: int
    writable: bool = True  # the weights may be laid out anew
    kept: Kept = F16  # keys and values


class Front:
    """Embedding and the first layers, with their keys and values; what they make of a step goes to the card."""

    def __init__(self, leaves: Leaves, model: Transformer, size: FrontSize, device: torch.device) -> None:
        recorder = Recorder(leaves, size.threads, size.limits, leaves.strip_rows if size.writable else 0, size.kept)
        self.layers = size.layers
        self._recorded = Recorded(recorder, model.begin(recorder, size.layers), size.threads)
        shape = size.limits.rows, model.config.embedding_length
        self._host = torch.zeros(shape, pin_memory=device.type == "cuda")
        self.states = torch.zeros(shape, device=device)  # (rows, width): what the card goes on with

    @property
    def nbytes(self) -> int:
        """Of activations and of the cache as far as it is promised."""
        return self._recorded.recorder.nbytes()

    def run(self, batch: Batch) -> None:
        """Compute a step's rows; the card must be done with the step before. `upload` sends them."""
        self._recorded.run(batch)
        rows = len(batch.tokens)
        self._host.numpy()[:rows] = self._recorded.result[:rows]

    def timed(self, batch: Batch) -> list[tuple[str, float]]:
        """One pass that the card does not go on with: for each row of the Program its label and seconds."""
        begin = time.perf_counter()
        rows = self._recorded.timed(batch)
        seconds = time.perf_counter() - begin
        return [(label, share * seconds) for label, share in rows]

    def upload(self, rows: int) -> torch.Tensor:
        """Copy to the device on the current stream; (rows, width) there, of which a graph counts only some."""
        self.states[:rows].copy_(self._host[:rows], non_blocking=True)
        return self.states[:rows]

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks of the cache, (from, to), on every layer here."""
        self._recorded.copy_blocks(pairs)

    def copy_states(self, pairs: list[tuple[int, int]]) -> None:
        """Copy states of texts, (from, to), on every layer here."""
        self._recorded.copy_states(pairs)

    def close(self) -> None:
        """Stop the threads."""
        self._recorded.close()
