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
from runtime.execute.hotness import Budget, Hotness, Mask, Move

STEPS, ROWS = 4, 64  # from one look to the next, whatever comes first


class ExpertCache:
    """Residences of all layers, and their moves. Belongs to one thread; its work is on the current stream."""

    def __init__(self, layers: list[Layer], device: torch.device, side: Side) -> None:
        self._side, self._tables = side, Tables(layers, device)
        self.residences = [Residence(layer, self._tables.of(i), self._tables.host[i]) for i, layer in enumerate(layers)]
        most = self._tables.host.shape[2]
        self._uses = torch.zeros((2, len(layers), most), dtype=torch.int32, device=device)
        self._told = torch.zeros_like(self._uses, device="cpu", pin_memory=device.type == "cuda")
        self._known: npt.NDArray[np.int32] = self._told.numpy().copy()
        self._hotness, self._budget = Hotness(len(layers), most), Budget()
        self._under_way: list[tuple[Move, int]] = []  # with its slot
        self._steps = self._rows = 0
        self._absent = 0  # experts that have no place where others have one
        self._looked = False  # since the last moves
        self.hits = self.lookups = 0  # experts of rows that were found in VRAM, of all that were looked up
        self.moves = self.moved_bytes = 0  # of experts that have arrived
        self.moving = False

    def open(self, moving: bool) -> None:
        """All residences are filled. `moving`: slots may change hands, where there are some."""
        self._tables.upload()
        self._absent = self._count_absent()
        self.moving = moving and self._absent > 0
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
        self._absent = self._count_absent()
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
        """Before a step of so many rows."""
        self._steps += 1
        self._rows += rows

    def settle(self) -> None:
        """Wait until nothing moves."""
        self._side.wait()
        self._enter()

    def move(self) -> None:
        """After the launch of a step, while the card is busy with its end: look at what the steps before have used, or begin the
        moves that a look suggests; one of the two, so that the next step need not wait."""
        if self._looked and not self._under_way:
            self._begin_moves()
        elif self.moving and (self._steps >= STEPS or self._rows >= ROWS):
            self._look()

    def _begin_moves(self) -> None:
        self._looked = False
        for move in self._hotness.moves(self._resident(), self._budget.most(self._absent)):
            self._under_way.append((move, self.residences[move.layer].leave(move.victim)))
        self._budget.spend(len(self._under_way))
        if not self._under_way:
            return
        self._tables.upload()
        with self._side.after_current():
            for move, slot in self._under_way:
                self._fill(move, slot)

    def _resident(self) -> Mask:
        resident: Mask = self._tables.host[:, 0] != 0
        return resident

    def _count_absent(self) -> int:
        return sum(residence.layer.experts - residence.slots for residence in self.residences if residence.partial)

    def _look(self) -> None:
        told = self._told.numpy().copy()
        new = told - self._known  # modulo 2 ** 32
        resident, looked_up, uses = self._resident(), new[LOOKED_UP], new[LOOKED_UP] + new[STREAMED]
        self.hits, self.lookups = self.hits + int(looked_up[resident].sum()), self.lookups + int(looked_up.sum())
        self._budget.see(int(uses[~resident].sum()), self._absent)
        self._hotness.see(uses, self._rows)
        self._known, self._steps, self._rows, self._looked = told, 0, 0, True
        if self._under_way and self._side.arrived():
            self._enter()

    def _enter(self) -> None:
        for move, slot in self._under_way:
            self.residences[move.layer].enter(move.expert, slot)
            self.moved_bytes += sum(self.residences[move.layer].layer.sizes)
        if self._under_way:
            self._tables.upload()
            self.moves += len(self._under_way)
        self._under_way = []

    def _fill(self, move: Move, slot: int) -> None:
        residence = self.residences[move.layer]
        layer = residence.layer
        for tensor, size, target in zip(layer.tensors, layer.sizes, residence.matrices(slot), strict=True):
            self._side.copy(target, tensor.address + move.expert * size, size)
