"""The arena: every tensor of a model file, read into one anonymous mapping and checked before a kernel sees it."""

from __future__ import annotations

import concurrent.futures
import ctypes
import dataclasses
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from runtime import published
from runtime.adapters import EMBEDDING, Change, read_adapter
from runtime.core import FloatArray, Metadata, ModelError
from runtime.gguf_file import GGUFFile, TensorInfo, open_gguf
from runtime.quants import BY_NAME, TYPES
from runtime.quants.base import QuantType

ALIGN = 64  # bytes; a tensor starts on a cache line
CHUNK = 8 << 20  # bytes of one read
_TOKENS = "tokenizer.ggml.tokens"
READERS = 4  # reads in flight; one thread does not fill an NVMe drive

Scalar = TypeVar("Scalar", bound=np.generic)
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """A matrix in memory. `shape` is in ggml's order: shape[0] is the length of a row."""

    name: str
    shape: tuple[int, ...]
    quant: QuantType
    address: int
    nbytes: int

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
        nbytes = self.nbytes // self.shape[2]
        address = self.address + number * nbytes
        return dataclasses.replace(self, name=f"{self.name}[{number}]", shape=self.shape[:2], address=address, nbytes=nbytes)

    def part(self, first: int, rows: int) -> Tensor:
        """Some of a matrix's rows."""
        assert first + rows <= self.rows
        return dataclasses.replace(
            self,
            name=f"{self.name}[{first}:{first + rows}]",
            shape=(self.shape[0], rows),
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

    def __init__(self, file: GGUFFile, progress: Progress) -> None:
        self.metadata, self.n_vocab = metadata(file)
        self._infos = infos(file)
        self._offsets = _layout(self._infos)
        self.nbytes = sum(_aligned(info.nbytes) for info in self._infos)
        self._unpacked: list[npt.NDArray[Any]] = []
        self._forgotten = 0  # bytes of the arena
        self._adapters: list[FloatArray] = []  # what the tensors of adapters lie in
        self._pairs: dict[str, list[LowRank]] = {}  # by the name of the tensor that they belong to
        self._arena = _anonymous(max(self.nbytes, ALIGN))
        self._bytes = np.frombuffer(self._arena, np.uint8)
        placed = [dataclasses.replace(self._place(info), name=published.tensor_name(file, info.name)) for info in self._infos]
        self._tensors = {tensor.name: tensor for tensor in placed}
        self._read(file, progress)

    def _place(self, info: TensorInfo) -> Tensor:
        return tensor_at(self._bytes.ctypes.data + self._offsets[info.name], info)

    def _read(self, file: GGUFFile, progress: Progress) -> None:
        done = 0
        descriptors = [os.open(part, os.O_RDONLY) for part in file.parts]
        try:
            with concurrent.futures.ThreadPoolExecutor(READERS) as readers:
                jobs = [
                    readers.submit(_read_into, descriptors[info.part], info.offset + at, self._slice(info, at))
                    for info in self._infos
                    for at in range(0, info.nbytes, CHUNK)
                ]
                for job in concurrent.futures.as_completed(jobs):
                    done += job.result()
                    progress("reading weights", done, self.nbytes)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _slice(self, info: TensorInfo, at: int) -> memoryview:
        start = self._offsets[info.name]
        return memoryview(self._arena)[start + at : start + min(at + CHUNK, info.nbytes)]

    @property
    def arena(self) -> tuple[int, int]:
        """Address and bytes of the mapping that all tensors lie in."""
        return self._bytes.ctypes.data, self.nbytes

    @property
    def resident(self) -> int:
        """Bytes of memory that the tensors take now."""
        return self.nbytes - self._forgotten + sum(values.nbytes for values in self._unpacked)

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
        start = tensor.address - self._bytes.ctypes.data
        if not 0 <= start < len(self._bytes):  # an earlier adapter has moved it
            return
        first, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > first and hasattr(mmap, "MADV_DONTNEED"):
            self._arena.madvise(mmap.MADV_DONTNEED, first, end - first)
            self._forgotten += end - first

    def close(self) -> None:
        """Give the arena back; no kernel may run on it any more. Once more does nothing."""
        if not self._arena.closed:
            self._tensors.clear()
            del self._bytes
            self._arena.close()


def _aligned(n: int) -> int:
    return (n + ALIGN - 1) // ALIGN * ALIGN


def _layout(infos: list[TensorInfo]) -> dict[str, int]:
    offsets, end = {}, 0
    for info in infos:
        offsets[info.name] = end
        end += _aligned(info.nbytes)
    return offsets


def _anonymous(nbytes: int) -> mmap.mmap:
    """Zeroed memory of this process alone: shared memory, mmap's default, gets no huge pages on most systems."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, nbytes)
    arena = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _ask_for_huge_pages(arena)
    return arena


def _ask_for_huge_pages(arena: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            arena.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without them: ordinary pages do as well
            return


def _read_into(descriptor: int, offset: int, target: memoryview) -> int:
    """Fill `target` from the file; ModelError when the file became shorter."""
    done = 0
    while done < len(target):
        count = os.preadv(descriptor, [target[done:]], offset + done)
        if count == 0:
            raise ModelError("the model file ended while it was read")
        done += count
    return done


def aligned_array(shape: tuple[int, ...], dtype: type[Scalar]) -> npt.NDArray[Scalar]:
    """A zeroed array that starts on a cache line; pages that are never touched cost no memory."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(nbytes + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def open_weights(path: str | Path, progress: Progress, adapters: Sequence[str | Path] = ()) -> Weights:
    """Open and read a model file (the first one of a split model), and the adapters that are applied to it."""
    with open_gguf(path) as file:
        weights = Weights(file, progress)
    for adapter in adapters:
        weights.adapt(adapter)
    return weights
