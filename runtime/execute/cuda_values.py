"""What the card computes with: rows of activations and matrices, and the host's memory as tensors."""

from __future__ import annotations

import ctypes
import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from runtime.core import FloatArray
from runtime.kernels import cores
from runtime.kernels.leaves import Leaves
from runtime.quants import BY_NAME, QuantType
from runtime.weights import Tensor

FORMATS = ("q8_k", "q8_0")  # of rows in int8: Format of packed.cu; FLOATS: of rows that stay as they are
FLOATS = len(FORMATS)
CHUNK_BLOCKS = 1 << 16  # blocks dequantised by one task


@dataclasses.dataclass(eq=False, slots=True)
class Value:
    """Rows of float32 on the device; `count`: how many of them count in this step, int32 on the device."""

    data: torch.Tensor
    count: torch.Tensor
    halves: tuple[torch.Tensor, torch.Tensor] | None = None  # f16 and its scale by row, for the tensor cores
    ints: dict[int, torch.Tensor] = dataclasses.field(default_factory=dict)
    """By format: the rows in int8, where these are few."""

    @property
    def rows(self) -> int:
        return len(self.data)

    @property
    def width(self) -> int:
        return int(self.data.shape[1])


@dataclasses.dataclass(frozen=True, slots=True)
class Weight:
    """A matrix on the device."""

    data: torch.Tensor
    kind: str
    row_bytes: int
    rows: int

    @property
    def type_id(self) -> int:
        return BY_NAME[self.kind].type_id

    def part(self, first: int, rows: int) -> Weight:
        """Some of its rows, in its memory."""
        start = first * self.row_bytes
        return Weight(self.data[start : start + rows * self.row_bytes], self.kind, self.row_bytes, rows)


def format_of(kind: QuantType) -> int:
    """The format of the rows that such a matrix is multiplied with."""
    return FORMATS.index(kind.activation) if kind.cuda_ints else FLOATS


def dequantize(tensor: Tensor, leaves: Leaves) -> FloatArray:
    """All values of a tensor in float32, flat, by the CPU's leaves on all cores."""
    kind = tensor.quant
    leaf = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(leaves.dequantize_row(kind.name))
    blocks = tensor.nbytes // kind.block_bytes
    out = np.empty(blocks * kind.block_size, np.float32)

    def part(first: int) -> None:
        count = min(CHUNK_BLOCKS, blocks - first)
        leaf(tensor.address + first * kind.block_bytes, out.ctypes.data + 4 * first * kind.block_size, count)

    with ThreadPoolExecutor(cores.physical()) as pool:
        list(pool.map(part, range(0, blocks, CHUNK_BLOCKS)))
    return out


def memory(address: int, nbytes: int) -> torch.Tensor:
    """Host memory as a tensor of bytes, without a copy."""
    return torch.from_numpy(np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address)))
