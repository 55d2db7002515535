"""The hottest experts move to VRAM while the model runs.

The card counts how often each expert is asked for. Every few steps of single rows the counts are looked at here: slots of cold
experts are closed, then filled with hot ones on a stream of their own, and are open again when the copies have arrived. Nobody
waits for a copy: until then such an expert is computed where it was.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from runtime.cuda.side import Side
from runtime.execute.experts import LOOKED_UP, STREAMED, Layer, Residence, Tables
from runtime.execute.hotness import Hotness, Mask, Move

STEPS = 4  # from one look to the next
SHARE = 16  # experts that the rest of the machine computes for each one that is moved: a bound on what moving may cost


class ExpertCache:
    """Residences of all layers, and their moves. Belongs to one thread; its work is on the current stream."""

    def __init__(self, layers: list[Layer], device: torch.device, side: Side) -> None:
        self._side, self._tables = side, Tables(layers, device)
        self.residences = [Residence(layer, self._tables.of(i), self._tables.host[i]) for i, layer in enumerate(layers)]
        most = self._tables.host.shape[2]
        self._uses = torch.zeros((2, len(layers), most), dtype=torch.int32, device=device)
        self._told = torch.zeros_like(self._uses, device="cpu", pin_memory=device.type == "cuda")
        self._known: npt.NDArray[np.int32] = self._told.numpy().copy()
        self._hotness = Hotness(len(layers), most)
        self._under_way: list[tuple[Move, int]] = []  # with its slot
        self._steps = self._rows = self._missed = 0
        self.hits = self.lookups = 0  # experts of rows that were found in VRAM, of all that were looked up
        self.moves = 0
        self.moving = False

    def open(self, moving: bool) -> None:
        """All residences are filled. `moving`: slots may change hands, where there are some."""
        self._tables.upload()
        self.moving = moving and any(residence.partial for residence in self.residences)
        if self.moving:
            for i, residence in enumerate(self.residences):
                residence.uses = None if residence.complete else self._uses[:, i]

    def shrink(self, share: float) -> int:
        """Keep so much of the slots of layers that are not complete; how many bytes that frees. Graphs are stale then."""
        self.settle()
        before = self.partial_bytes
        for residence in self.residences:
            if residence.partial:
                residence.shrink(max(1, int(residence.slots * share)))
        self._tables.upload()
        return before - self.partial_bytes

    @property
    def partial_bytes(self) -> int:
        """Bytes of the slots of layers that are not complete."""
        return sum(residence.nbytes for residence in self.residences if residence.partial)

    def report(self) -> None:
        """At the end of a step, also in a graph: send the counts to the host."""
        if self.moving:
            self._told.copy_(self._uses, non_blocking=True)

    def begin(self, rows: int) -> None:
        """Before a step of so many rows: look at what the steps before it have used."""
        if self.moving and self._steps >= STEPS:
            self._look()
        self._steps += 1
        self._rows += rows

    def settle(self) -> None:
        """Wait until nothing moves."""
        self._side.wait()
        self._enter()

    def move(self) -> None:
        """After the launch of a step: begin the moves that its predecessors suggest."""
        if self._under_way or not self._missed:
            return
        most, self._missed = max(1, self._missed // SHARE), 0
        for move in self._hotness.moves(self._resident(), most):
            self._under_way.append((move, self.residences[move.layer].leave(move.victim)))
        if not self._under_way:
            return
        self._tables.upload()
        with self._side.after_current():
            for move, slot in self._under_way:
                self._fill(move, slot)

    def _resident(self) -> Mask:
        resident: Mask = self._tables.host[:, 0] != 0
        return resident

    def _look(self) -> None:
        told = self._told.numpy().copy()
        new = told - self._known  # modulo 2 ** 32
        resident, looked_up = self._resident(), new[LOOKED_UP]
        hits, lookups = int(looked_up[resident].sum()), int(looked_up.sum())
        self.hits, self.lookups, self._missed = self.hits + hits, self.lookups + lookups, lookups - hits
        self._hotness.see(new[LOOKED_UP] + new[STREAMED], self._rows)
        self._known, self._steps, self._rows = told, 0, 0
        if self._under_way and self._side.arrived():
            self._enter()

    def _enter(self) -> None:
        for move, slot in self._under_way:
            self.residences[move.layer].enter(move.expert, slot)
        if self._under_way:
            self._tables.upload()
            self.moves += len(self._under_way)
        self._under_way = []

    def _fill(self, move: Move, slot: int) -> None:
        residence = self.residences[move.layer]
        layer = residence.layer
        for tensor, size, target in zip(layer.tensors, layer.sizes, residence.matrices(slot), strict=True):
            self._side.copy(target, tensor.address + move.expert * size, size)
