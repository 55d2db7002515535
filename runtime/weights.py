"""The tensors of a model file, checked before a kernel sees them."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from runtime import published
from runtime.adapters import EMBEDDING, Change, read_adapter
from runtime.arena import ALIGN, Arena, FilePages, Memory
from runtime.arena import Progress as Progress
from runtime.core import FloatArray, Metadata, ModelError
from runtime.gguf_file import GGUFFile, TensorInfo, open_gguf
from runtime.quants import BY_NAME, TYPES
from runtime.quants.base import QuantType

_TOKENS = "tokenizer.ggml.tokens"

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """A matrix in memory. `shape` is in ggml's order: shape[0] is the length of a row."""

    name: str
    shape: tuple[int, ...]
    quant: QuantType
    address: int
    nbytes: int
    whole: tuple[str, int] | None = None  # the matrix that these rows are a part of, and the first of them
    apart: int = 0  # bytes from one matrix of a stack to the next, where something lies between them

    @property
    def row_bytes(self) -> int:
        return self.shape[0] // self.quant.block_size * self.quant.block_bytes

    @property
    def row_blocks(self) -> int:
        return self.shape[0] // self.quant.block_size

    @property
    def rows(self) -> int:
        """Rows of one matrix; a stack of experts has shape[2] of them."""
        return self.shape[1] if len(self.shape) > 1 else 1

    def matrix(self, number: int) -> Tensor:
        """One matrix of a stack."""
        nbytes, address = self.nbytes // self.shape[2], self.address + number * self.matrix_bytes
        name = f"{self.name}[{number}]"
        return dataclasses.replace(self, name=name, shape=self.shape[:2], address=address, nbytes=nbytes, apart=0)

    @property
    def matrix_bytes(self) -> int:
        """Bytes from one matrix of a stack to the next."""
        return self.apart or self.nbytes // self.shape[2]

    def part(self, first: int, rows: int) -> Tensor:
        """Some of a matrix's rows."""
        assert first + rows <= self.rows
        return dataclasses.replace(
            self,
            name=f"{self.name}[{first}:{first + rows}]",
            shape=(self.shape[0], rows),
            whole=(self.name, first),
            address=self.address + first * self.row_bytes,
            nbytes=rows * self.row_bytes,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to a matrix product: b (a x)."""

    a: Tensor
    b: Tensor

    def part(self, first: int, rows: int) -> LowRank:
        """For some of the matrix's rows."""
        return LowRank(self.a, self.b.part(first, rows))


def metadata(file: GGUFFile) -> tuple[Metadata, int]:
    """A file's metadata and the number of its tokens."""
    arrays = {key: file.metadata.array_length(key) for key in file.metadata if key.startswith("tokenizer.")}
    changes = published.changes(file)
    # without the vocabulary's arrays: decoded, they take tens of MB that nobody here reads
    found = {key: file.metadata[key] for key in file.metadata if arrays.get(key) is None}
    found |= {key: value for key, value in changes.items() if arrays.get(key) is None}
    return found, len(changes.get(_TOKENS, ())) or arrays.get(_TOKENS) or 0


def infos(file: GGUFFile) -> list[TensorInfo]:
    """The tensors that are read."""
    return [info for info in file.tensors.values() if published.is_read(file, info.name)]


def tensor_at(address: int, info: TensorInfo) -> Tensor:
    """A tensor of a file whose bytes are, or would be, at an address; ModelError for a type that is not supported."""
    quant = TYPES.get(info.type_id)
    if quant is None:
        raise ModelError(f"tensor {info.name!r} has the type {info.type_name}, which is not supported")
    return Tensor(info.name, tuple(info.shape), quant, address, info.nbytes)


class Weights:
    """The tensors of one model, by GGUF name."""

    def __init__(self, file: GGUFFile, progress: Progress, *, mapped: bool = False) -> None:
        """`mapped`: they stay in the file, and memory holds what the system caches of it."""
        self.metadata, self.n_vocab = metadata(file)
        self._unpacked: list[npt.NDArray[Any]] = []
        self._forgotten = 0  # bytes of the arena
        self._adapters: list[FloatArray] = []  # what the tensors of adapters lie in
        self._pairs: dict[str, list[LowRank]] = {}  # by the name of the tensor that they belong to
        read = infos(file)
        for info in read:
            tensor_at(0, info)  # a type that is not supported is refused before anything is read
        self._memory: Memory = FilePages(file, read) if mapped else Arena(file, read, progress)
        self.nbytes = self._memory.nbytes
        placed = [dataclasses.replace(self._place(info), name=published.tensor_name(file, info.name)) for info in read]
        self._tensors = {tensor.name: tensor for tensor in placed}

    def _place(self, info: TensorInfo) -> Tensor:
        return tensor_at(self._memory.address(info), info)

    @property
    def arena(self) -> tuple[int, int] | None:
        """Address and bytes of the mapping that all tensors lie in; None where they stay in the file."""
        return (self._memory.start, self._memory.nbytes) if isinstance(self._memory, Arena) else None

    @property
    def writable(self) -> bool:
        """Whether kernels may lay tensors out anew."""
        return self._memory.writable

    @property
    def resident(self) -> int:
        """Bytes of memory that the tensors take now and do not give back."""
        kept = self.nbytes - self._forgotten if self._memory.writable else sum(values.nbytes for values in self._adapters)
        return kept + sum(values.nbytes for values in self._unpacked)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._tensors.values())

    def matrix(self, name: str, *shape: int) -> Tensor:
        """The tensor `name`; ModelError when it is missing or has another shape (ggml's order)."""
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f"missing tensor {name!r}")
        if tensor.shape != shape:
            raise ModelError(f"tensor {name!r} has shape {list(tensor.shape)}, expected {list(shape)}")
        return tensor

    def divide(self, name: str, names: tuple[str, str]) -> None:
        """Make two stacks of one whose matrices hold the rows of both, one below the other: each in one piece, or where the
        memory must stay as it is, in turns."""
        tensor = self._tensors.pop(name)
        if len(tensor.shape) != 3 or tensor.rows % 2:
            raise ModelError(f"tensor {name!r} has shape {list(tensor.shape)} and cannot be divided")
        half, shape = tensor.nbytes // 2, (tensor.shape[0], tensor.rows // 2, tensor.shape[2])
        step, apart = half // tensor.shape[2], tensor.nbytes // tensor.shape[2]
        if self.writable:
            memory = np.ctypeslib.as_array((ctypes.c_uint8 * tensor.nbytes).from_address(tensor.address))
            memory[:] = memory.reshape(tensor.shape[2], 2, -1).swapaxes(0, 1).reshape(-1)
            step, apart = half, 0
        for number, part in enumerate(names):
            address = tensor.address + number * step
            self._tensors[part] = Tensor(part, shape, tensor.quant, address, half, apart=apart)

    def rows(self, name: str) -> int:
        """Rows of the tensor `name`; ModelError when it is missing."""
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f"missing tensor {name!r}")
        return tensor.rows

    def vector(self, name: str, length: int) -> FloatArray:
        """A small tensor (norm, bias) as float32, whatever its type."""
        return self.dequantize(self.matrix(name, length))

    def dequantize(self, tensor: Tensor) -> FloatArray:
        """All values of a tensor in float32, flat."""
        memory = (ctypes.c_uint8 * tensor.nbytes).from_address(tensor.address)
        blocks = np.ctypeslib.as_array(memory).reshape(-1, tensor.quant.block_bytes)
        return tensor.quant.dequantize(blocks).reshape(-1).astype(np.float32)

    def unpacked(self, tensor: Tensor) -> Tensor:
        """A matrix of a quantised type in F16. The memory of its packed form is given back, and reads as zeros then."""
        values = aligned_array((tensor.rows, tensor.shape[0]), np.float16)
        values[:] = self.dequantize(tensor).reshape(values.shape)
        self._unpacked.append(values)
        self._forget(tensor)
        return dataclasses.replace(tensor, quant=BY_NAME["F16"], address=values.ctypes.data, nbytes=values.nbytes)

    def adapt(self, path: str | Path) -> None:
        """Apply a LoRA adapter. A matrix gets its pair beside it; what is looked up, and stacks of experts, become floats with
        the change in them. ModelError when it does not fit the model."""
        for change in read_adapter(path, self.metadata, {tensor.name: tensor.shape for tensor in self}):
            if change.name == EMBEDDING or change.a.ndim > 2:
                self._merge(self._tensors[change.name], change)
            else:
                pair = LowRank(self._added(f"{change.name}.lora_a", change.a), self._added(f"{change.name}.lora_b", change.b))
                self._pairs.setdefault(change.name, []).append(pair)

    def adapters(self, name: str) -> list[LowRank]:
        """What adapters add to the tensor."""
        return self._pairs.get(name, [])

    def _added(self, name: str, values: FloatArray) -> Tensor:
        """A matrix of an adapter as one of the model's tensors."""
        while name in self._tensors:  # an earlier adapter's
            name += "+"
        kept = aligned_array(values.shape, np.float32)
        kept[:] = values
        self._adapters.append(kept)
        self.nbytes += kept.nbytes
        tensor = Tensor(name, values.shape[::-1], BY_NAME["F32"], kept.ctypes.data, kept.nbytes)
        self._tensors[name] = tensor
        return tensor

    def _merge(self, tensor: Tensor, change: Change) -> None:
        matrix = tensor.rows * tensor.row_bytes
        kind = BY_NAME["F32" if tensor.quant.name in ("F32", "BF16") else "F16"]
        values = aligned_array(tensor.shape[::-1], np.float32 if kind.name == "F32" else np.float16)
        stack = values.reshape(-1, tensor.rows, tensor.shape[0])
        for number, target in enumerate(stack):
            one = dataclasses.replace(tensor, address=tensor.address + number * matrix, nbytes=matrix)
            target[:] = self.dequantize(one).reshape(target.shape) + change.delta(number if len(stack) > 1 else None)
        self._unpacked.append(values)
        self._forget(tensor)
        merged = dataclasses.replace(tensor, quant=kind, address=values.ctypes.data, nbytes=values.nbytes)
        self._tensors[tensor.name] = merged

    def _forget(self, tensor: Tensor) -> None:
        self._forgotten += self._memory.forget(tensor.address, tensor.nbytes)

    def close(self) -> None:
        """Give the arena back; no kernel may run on it any more. Once more does nothing."""
        self._tensors.clear()
        self._memory.close()


def aligned_array(shape: tuple[int, ...], dtype: type[Scalar]) -> npt.NDArray[Scalar]:
    """A zeroed array that starts on a cache line; pages that are never touched cost no memory."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(nbytes + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def open_weights(
    path: str | Path, progress: Progress, adapters: Sequence[str | Path] = (), *, mapped: bool = False
) -> Weights:
    """Open and read a model file (the first one of a split model), and the adapters that are applied to it. `mapped`: see
    Weights."""
    with open_gguf(path) as file:
        weights = Weights(file, progress, mapped=mapped)
    for adapter in adapters:
        weights.adapt(adapter)
    return weights
