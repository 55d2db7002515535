"""Where the routed experts of each layer lie, as the GPU's kernels see it."""

from __future__ import annotations

import ctypes
import dataclasses

import torch

from runtime.layers.ops import Experts
from runtime.weights import Tensor

KINDS = 3  # gate, up, down


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


class Residence:
    """Addresses of a layer's experts on the device, (KINDS, experts) int64, 0 for those that are not there."""

    def __init__(self, layer: Layer, device: torch.device) -> None:
        self.layer = layer
        self.addresses = torch.zeros((KINDS, layer.experts), dtype=torch.int64, device=device)
        self.present = 0
        self._kept: list[torch.Tensor] = []

    @property
    def complete(self) -> bool:
        return self.present == self.layer.experts

    def keep(self, parts: list[torch.Tensor], count: int) -> None:
        """The first `count` experts are on the device now: one tensor a kind."""
        self.addresses[:, :count] = addresses(self.layer, [part.data_ptr() for part in parts], count)
        self.present, self._kept = count, parts


def stack(layer: Layer, kind: int, table: torch.Tensor, bias: int | None) -> Stack:
    """What the kernels get of one kind of matrix; `table`: addresses of all experts, (KINDS, experts); `bias`: address of
    theirs."""
    tensor = layer.tensors[kind]
    each = tensor.nbytes // layer.experts
    return Stack(table[kind].data_ptr(), tensor.address, each, tensor.row_bytes, bias, tensor.rows, tensor.quant.type_id)


def addresses(layer: Layer, starts: list[int], count: int) -> torch.Tensor:
    """(KINDS, count) int64 of experts that lie one behind the other from `starts`."""
    return torch.tensor(
        [
            [start + expert * (tensor.nbytes // layer.experts) for expert in range(count)]
            for start, tensor in zip(starts, layer.tensors, strict=True)
        ],
        dtype=torch.int64,
    )
