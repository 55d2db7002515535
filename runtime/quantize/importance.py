"""Importance matrices: how much each column of a tensor counts, as llama-imatrix writes them (GGUF, or the older .dat).

Both hold, for each tensor, sums of squared activations of a calibration text. An older file is a count of entries, and for
each a name, a number of calls and float32 sums, of strings and arrays the length first; then, in most, the number of chunks
and the name of the text (llama.cpp common/imatrix-loader.cpp, tools/quantize/quantize.cpp load_imatrix).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.core import ModelError
from runtime.gguf_file import GGUFError, GGUFFile, Metadata, TensorInfo, open_gguf
from runtime.quants.base import Floats

_SUMS, _COUNTS = ".in_sum2", ".counts"
_TABLES = ("token_embd.weight", "per_layer_token_embd.weight")  # looked up, not multiplied by: their sums mean nothing


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
    """Of one tensor: `sums` are those of one or several matrices one after the other, `counts` what they are divided by."""

    sums: Floats
    counts: Floats


@dataclasses.dataclass(frozen=True, slots=True)
class ImportanceMatrix:
    """What a file says. `chunks`: pieces of text that it was measured on, 0 when unknown."""

    entries: Mapping[str, _Entry]
    dataset: str = ""
    chunks: int = 0

    def has(self, name: str, shape: Sequence[int]) -> bool:
        """Whether it says something of the tensor; ModelError when that is of another shape. `shape` in ggml's order."""
        entry = self.entries.get(name)
        expected = shape[0] * (shape[2] if len(shape) > 2 else 1)
        if entry is None or len(entry.sums) == expected:
            return entry is not None
        if name in _TABLES:
            return False
        raise ModelError(f"tensor {name!r} takes {expected} numbers of an importance matrix, and this one has {len(entry.sums)}")

    def table(self, name: str, row: int) -> Floats:
        """(matrices, row): the importance of each column of a tensor that it `has`. Matrices that were never used count alike."""
        entry = self.entries[name]
        counts = entry.counts.reshape(-1, 1)
        means = np.ones((len(counts), len(entry.sums) // len(counts)), np.float32)
        np.divide(entry.sums.reshape(means.shape), counts, out=means, where=counts > 0)
        return means.reshape(-1, row)


def read_matrix(path: Path) -> ImportanceMatrix:
    """ModelError for a file that is no importance matrix, or a damaged one; OSError."""
    with path.open("rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    try:
        matrix = _from_gguf(path) if is_gguf else _Reader(path).read()
    except (GGUFError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise ModelError(f"the importance matrix cannot be read: {error}") from None
    for name, entry in matrix.entries.items():
        if not (np.isfinite(entry.sums).all() and (entry.sums >= 0).all()):
            raise ModelError(f"the importance matrix has numbers for {name!r} that are negative, infinite or none")
    return matrix


# ---------------------------------------------------------------- GGUF


def _from_gguf(path: Path) -> ImportanceMatrix:
    with open_gguf(path) as file:
        names = {name.removesuffix(suffix) for name in file.tensors for suffix in (_SUMS, _COUNTS) if name.endswith(suffix)}
        if not names:
            raise ValueError("it has no entries")
        datasets = file.metadata.get("imatrix.datasets") or [""]
        entries = {name: _entry(file, name) for name in sorted(names)}
        return ImportanceMatrix(entries, str(datasets[0]), _chunks(file.metadata))


def _chunks(metadata: Metadata) -> int:
    count = metadata.get("imatrix.chunk_count", 0)
    return count if isinstance(count, int) else 0


def _entry(file: GGUFFile, name: str) -> _Entry:
    sums, counts = (file.tensors.get(name + suffix) for suffix in (_SUMS, _COUNTS))
    if sums is None or counts is None:
        raise ValueError(f"of {name!r} it has sums or counts, but not both")
    entry = _Entry(_floats(file, sums), np.rint(_floats(file, counts)))
    if not len(entry.counts) or len(entry.sums) % len(entry.counts):
        raise ValueError(f"its {len(entry.sums)} sums for {name!r} do not go with {len(entry.counts)} counts")
    return entry


def _floats(file: GGUFFile, info: TensorInfo) -> Floats:
    if info.type_name != "F32":
        raise ValueError(f"{info.name!r} is of type {info.type_name}, not F32")
    return _mapped(file.path, info.offset, info.nbytes // 4)


def _mapped(path: Path, offset: int, count: int) -> Floats:
    return np.memmap(path, "<f4", "r", offset, (count,)) if count else np.zeros(0, np.float32)


# ---------------------------------------------------------------- the older form


class _Reader:
    """Reads such a file from its beginning; ValueError where it breaks off."""

    def __init__(self, path: Path) -> None:
        self._data: Any = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        self._path = path
        self._at = 0

    def read(self) -> ImportanceMatrix:
        count = self._number()
        if count < 1:
            raise ValueError("it has no entries")
        entries = dict(self._entry() for _ in range(count))
        chunks = self._number() if self._left else 0
        dataset = self._text(self._number()) if self._left else ""
        return ImportanceMatrix(entries, dataset, chunks)

    @property
    def _left(self) -> int:
        return len(self._data) - self._at

    def _entry(self) -> tuple[str, _Entry]:
        name = self._text(self._number())
        calls, count = self._number(), self._number()
        if count < 1:
            raise ValueError(f"it has no numbers for {name!r}")
        sums = _mapped(self._path, self._take(4 * count), count)
        return name, _Entry(sums, np.array([max(calls, 1)], np.float32))

    def _take(self, size: int) -> int:
        """Where the next `size` bytes are, which it steps over."""
        if not 0 <= size <= self._left:
            raise ValueError("it is no file that llama-imatrix wrote, or it breaks off")
        self._at += size
        return self._at - size

    def _number(self) -> int:
        at = self._take(4)
        return int(struct.unpack("<i", self._data[at : at + 4].tobytes())[0])

    def _text(self, size: int) -> str:
        at = self._take(size)
        return str(self._data[at : at + size].tobytes().decode())
