"""LoRA adapters: GGUF files with two small matrices for some of a model's, W x + B (A x).

Names are those of the model's tensors with `.lora_a` and `.lora_b`; of a stack of experts both are stacks. Shapes are ggml's:
A (n_in, rank), B (rank, n_out). For the table of embeddings they are A (rank, rows), B (rank, width): it is looked up in
A and multiplied by B.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.core import FloatArray, Metadata, ModelError
from runtime.gguf_file import GGUFFile, TensorInfo, open_gguf
from runtime.quants import TYPES

EMBEDDING = "token_embd.weight"
_A, _B, _NORM = ".lora_a", ".lora_b", "_norm.weight"


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What an adapter adds to one tensor. `a` and `b` in NumPy's order, rows first; `b` is multiplied by the adapter's scale."""

    name: str
    a: FloatArray
    b: FloatArray

    def delta(self, expert: int | None = None) -> FloatArray:
        """The matrix that is added, rows first."""
        if self.name == EMBEDDING:
            table: FloatArray = self.a @ self.b.T
            return table
        a, b = (self.a, self.b) if expert is None else (self.a[expert], self.b[expert])
        matrix: FloatArray = b @ a
        return matrix


def read_adapter(path: str | Path, model: Metadata, shapes: dict[str, tuple[int, ...]]) -> list[Change]:
    """The changes of an adapter file to a model with that metadata and those tensors, ggml's order.

    ModelError when it is no LoRA adapter or one of another model, GGUFError for a damaged file.
    """
    with open_gguf(path) as file:
        _check(file.metadata, model)
        alpha = file.metadata.get("adapter.lora.alpha", 0.0)
        with contextlib.closing(_Reader(file)) as reader:
            return [_change(reader, name, float(alpha), shapes) for name in _names(file)]


def _check(adapter: Mapping[str, Any], model: Metadata) -> None:
    kind, architecture = adapter.get("general.type"), adapter.get("general.architecture")
    if kind != "adapter" or adapter.get("adapter.type") != "lora":
        raise ModelError(f"the adapter is no LoRA adapter: its type is {kind!r}, {adapter.get('adapter.type')!r}")
    if architecture != model.get("general.architecture"):
        raise ModelError(f"the adapter is for {architecture!r}, the model is {model.get('general.architecture')!r}")
    if "adapter.alora.invocation_tokens" in adapter:
        raise ModelError("adapters that wait for certain tokens (aLoRA) are not supported")


def _names(file: GGUFFile) -> Iterator[str]:
    """The model's tensors that the file has both matrices for. Changes of norms are passed over, as by llama.cpp."""
    for name in file.tensors:
        stem, _, end = name.rpartition(".")
        if f".{end}" not in (_A, _B):
            if name.endswith(_NORM):
                continue
            raise ModelError(f"the adapter's tensor {name!r} is neither A nor B of a pair")
        if stem + _A not in file.tensors or stem + _B not in file.tensors:
            raise ModelError(f"the adapter has only {name!r} of a pair")
        if f".{end}" == _A:
            yield stem


class _Reader:
    def __init__(self, file: GGUFFile) -> None:
        self._file = file
        self._parts = [path.open("rb") for path in file.parts]

    def __call__(self, name: str) -> tuple[TensorInfo, FloatArray]:
        info = self._file.tensors[name]
        kind = TYPES.get(info.type_id)
        if kind is None:
            raise ModelError(f"the adapter's tensor {name!r} has the type {info.type_name}, which is not supported")
        part = self._parts[info.part]
        part.seek(info.offset)
        raw = np.frombuffer(part.read(info.nbytes), np.uint8)
        if raw.nbytes != info.nbytes:
            raise ModelError("the adapter file ended while it was read")
        values = kind.dequantize(raw.reshape(-1, kind.block_bytes)).astype(np.float32)
        return info, np.ascontiguousarray(values.reshape(info.shape[::-1]))

    def close(self) -> None:
        for part in self._parts:
            part.close()


def _change(reader: _Reader, name: str, alpha: float, shapes: dict[str, tuple[int, ...]]) -> Change:
    shape = shapes.get(name)
    if shape is None:
        raise ModelError(f"the adapter changes {name!r}, which this model does not have")
    (a, a_values), (b, b_values) = reader(name + _A), reader(name + _B)
    if not _fits(name, _plain(shape), _plain(a.shape), _plain(b.shape)):
        raise ModelError(f"the adapter's matrices for {name!r}, {list(a.shape)} and {list(b.shape)}, do not fit {list(shape)}")
    scale = np.float32(alpha / b.shape[0] if alpha else 1.0)
    return Change(name, a_values.reshape(_plain(a.shape)[::-1]), (b_values * scale).reshape(_plain(b.shape)[::-1]))


def _plain(shape: Sequence[int]) -> tuple[int, ...]:
    """At least two dimensions, and no more of size 1 after them."""
    kept = list(shape)
    while len(kept) > 2 and kept[-1] == 1:
        kept.pop()
    return tuple(kept + [1] * (2 - len(kept)))


def _fits(name: str, shape: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    if name == EMBEDDING:
        return (a[0], b[0]) == (b[0], a[0]) and (b[1], a[1]) == shape
    return a[2:] == b[2:] == shape[2:] and (a[0], b[1]) == shape[:2] and a[1] == b[0]
