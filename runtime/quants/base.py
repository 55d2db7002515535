"""What a GGUF tensor type is: its block, a NumPy reference, and (for types the CPU multiplies) a leaf emitter."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Value = Any  # an LLVM value


class QuantType(abc.ABC):
    """A tensor type with its NumPy reference; enough to read a tensor, not to multiply by it."""

    name: str
    type_id: int  # enum ggml_type
    block_size: int  # values a block
    block_bytes: int
    activation: str = "f32"  # the format of the other side of a dot product, see runtime.quants.activations
    rounded: str = ""
    """That format where the CPU multiplies bfloat16 by bfloat16, if it is another."""
    cuda: str = ""
    """CUDA C++ that unpacks values [8 p, 8 p + 8) of the block at `b` (const u8*) into `w` (float*), with the helpers of
    runtime/cuda/source/common.cuh; empty: the GPU gets such tensors dequantised. Types of one value a block: 8 values."""
    cuda_ints: str = ""
    """CUDA C++ that fills `o` (Ints of common.cuh) with 32 integers of the block at `b`, in two runs of 16 that lie `cuda_step`
    values apart: run `p`, counting only those that are the first of their two; empty: rows are multiplied in float32."""
    cuda_form: str = "PLAIN"  # Form of common.cuh
    cuda_step: int = 16
    cuda_scales: int = 32  # values that have one scale: 16 or 32

    @abc.abstractmethod
    def dequantize(self, blocks: Bytes) -> Floats:
        """(n, block_bytes) -> (n, block_size), bit-equal to `gguf.quants.dequantize`."""


class LeafType(QuantType):
    """A type that has compiled leaves: it emits the work on a few blocks, the loops around it are `runtime.kernels.leaves`'.

    A running sum of one (row, activation column) is a list of LLVM values, and every column gets the same operations in
    the same order, so a sum does not depend on the columns beside it.
    """

    sums: int = 1  # vector registers that hold the running sums of one column
    together: int = 1  # rows that a leaf for one column takes at a time, so that they share the loads of an input

    def steps(self, e: Emitter, columns: int = 0) -> Sequence[int]:
        """Blocks that one `emit_dot` of so many columns takes, or one `emit_dequantize` (0), falling; the last is 1."""
        return (1,)

    @abc.abstractmethod
    def start(self, e: Emitter) -> list[Value]:
        """The running sums before the first block."""

    @abc.abstractmethod
    def emit_dot(self, e: Emitter, w: Value, xs: Sequence[Value], sums: Sequence[list[Value]], count: int) -> list[list[Value]]:
        """Add `count` (one of `steps`) blocks at `w` times the activations at each of `xs` to `sums`, one entry a column."""

    @abc.abstractmethod
    def finish(self, e: Emitter, sums: list[Value]) -> Value:
        """The running sums of a column -> its f32 result."""

    @abc.abstractmethod
    def emit_dequantize(self, e: Emitter, w: Value, out: Value, count: int) -> None:
        """Store the values of `count` blocks at `w` as f32 at `out`, with the same bits as `dequantize`."""


def halves(raw: Bytes) -> Floats:
    """Little-endian f16 bytes (..., 2 n) -> (..., n) f32."""
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)
