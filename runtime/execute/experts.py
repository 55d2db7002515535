"""Where the routed experts of each layer lie, as the GPU's kernels see it."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import numpy.typing as npt
import torch

from runtime.layers.ops import Experts
from runtime.weights import Tensor

KINDS = 3  # gate, up, down
LOOKED_UP, STREAMED = 0, 1  # uses of experts: wherever they lie, or in a pass that brings the missing ones to the card
Addresses = npt.NDArray[np.int64]


class Stack(ctypes.Structure):
    """`Stack` of runtime/cuda/source/experts.cu: one kind of matrix of all experts of a layer."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("host", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("row_bytes", ctypes.c_uint64),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int),
        ("type", ctypes.c_int),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """One layer's three stacks of experts, in the host's memory."""

    matrices: Experts

    @property
    def gate(self) -> Tensor:
        return self.matrices.gate

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.matrices.gate, self.matrices.up, self.matrices.down

    @property
    def experts(self) -> int:
        return self.gate.shape[2]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes of one expert's matrices."""
        gate, up, down = (tensor.nbytes // self.experts for tensor in self.tensors)
        return gate, up, down


class Tables:
    """Addresses of the experts of several layers on the card, (layers, KINDS, experts), 0 for those that are not there: the
    host's copy is changed, then `upload` makes it the card's."""

    def __init__(self, layers: list[Layer], device: torch.device) -> None:
        most = max((layer.experts for layer in layers), default=0)
        pinned = device.type == "cuda"
        self._host = torch.zeros((len(layers), KINDS, most), dtype=torch.int64, pin_memory=pinned)
        self._device = torch.zeros_like(self._host, device=device, pin_memory=False)
        self.host: Addresses = self._host.numpy()
        self._experts = [layer.experts for layer in layers]

    def of(self, layer: int) -> torch.Tensor:
        """The card's addresses of one layer, (KINDS, experts)."""
        return self._device[layer, :, : self._experts[layer]]

    def upload(self) -> None:
        """In the order of the current stream; the host's copy stays as it is until then."""
        self._device.copy_(self._host, non_blocking=True)


class Residence:
    """The experts of one layer that lie on the card: slots of equal size, and who is in them."""

    def __init__(self, layer: Layer, table: torch.Tensor, host: Addresses) -> None:
        self.layer = layer
        self.addresses = table  # (KINDS, experts) on the card
        self.uses: torch.Tensor | None = None  # how often each was chosen, (LOOKED_UP and STREAMED, experts) int32 on the card
        self._host = host  # (KINDS, experts or more)
        self._slot = np.full(layer.experts, -1, np.int32)
        self._parts: list[torch.Tensor] = []

    @property
    def slots(self) -> int:
        """How many experts may lie on the card."""
        return len(self._parts[0]) // self.layer.sizes[0] if self._parts else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the slots."""
        return sum(part.nbytes for part in self._parts)

    @property
    def complete(self) -> bool:
        return self.slots == self.layer.experts

    @property
    def partial(self) -> bool:
        """Whether some experts have a slot and others have none, so that slots can change hands."""
        return 0 < self.slots < self.layer.experts

    @property
    def missing(self) -> list[tuple[int, int]]:
        """Runs [first, last) of experts that are not on the card."""
        edges = np.flatnonzero(np.diff(self._slot < 0, prepend=False, append=False)).tolist()
        return list(zip(edges[::2], edges[1::2], strict=True))

    @property
    def places(self) -> Addresses:
        """Addresses of all experts, (KINDS, experts), 0 for those that are not on the card: a view."""
        return self._host[:, : self.layer.experts]

    def keep(self, parts: list[torch.Tensor]) -> None:
        """The first experts are on the card now: bytes, one tensor a kind."""
        self._parts = parts
        for expert in range(self.slots):
            self.enter(expert, expert)

    def shrink(self, slots: int) -> None:
        """Have only the first so many slots; who is in the others is no longer looked for on the card."""
        for expert in np.flatnonzero(self._slot >= slots).tolist():
            self.leave(expert)
        for i, size in enumerate(self.layer.sizes):  # one after the other, so that little is there twice
            self._parts[i] = self._parts[i][: slots * size].clone()
        for expert in np.flatnonzero(self._slot >= 0).tolist():
            self.enter(expert, int(self._slot[expert]))

    def enter(self, expert: int, slot: int) -> None:
        """The slot holds this expert."""
        self._slot[expert] = slot
        self._host[:, expert] = self.matrices(slot)

    def leave(self, expert: int) -> int:
        """The expert is no longer looked for on the card. Returns its slot."""
        slot, self._slot[expert] = int(self._slot[expert]), -1
        self._host[:, expert] = 0
        return slot

    def matrices(self, slot: int) -> list[int]:
        """Addresses of a slot's three matrices."""
        return [part.data_ptr() + slot * size for part, size in zip(self._parts, self.layer.sizes, strict=True)]


def stack(layer: Layer, kind: int, table: torch.Tensor, bias: int | None) -> Stack:
    """What the kernels get of one kind of matrix; `table`: addresses of all experts, (KINDS, experts); `bias`: address of
    theirs."""
    tensor = layer.tensors[kind]
    size = layer.sizes[kind]
    return Stack(table[kind].data_ptr(), tensor.address, size, tensor.row_bytes, bias, tensor.rows, tensor.quant.type_id)
