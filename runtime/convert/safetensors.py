"""The weights of a checkpoint: safetensors files, mapped and read a piece at a time.

Layout: https://huggingface.co/docs/safetensors. A file is a u64, that many bytes of JSON (name -> dtype, shape, and the bytes'
place), and the data. Nothing in the JSON is believed before it is held against the size of the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from runtime.convert.errors import ConvertError
from runtime.convert.source import Source

MAX_HEADER = 100 << 20  # bytes, as in the reference implementation
MAX_DIMS = 8

Array = npt.NDArray[Any]

BF16 = np.dtype("<u2")  # NumPy has none: its bits, as nothing else in a model is of this type

F8 = "F8_E4M3"  # bytes that mean something only with scales: float8.py

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "F32": np.dtype("<f4"),
        "F16": np.dtype("<f2"),
        "BF16": BF16,
        "F64": np.dtype("<f8"),
        F8: np.dtype("u1"),
        "U8": np.dtype("u1"),
        "I8": np.dtype("i1"),
        "I32": np.dtype("<i4"),
        "I64": np.dtype("<i8"),
        "BOOL": np.dtype("?"),
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: what the header says of it."""

    name: str
    dtype: str
    shape: tuple[int, ...]  # rows first
    data: mmap.mmap
    offset: int  # in the file

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    def array(self) -> Array:
        """The values, not yet read from the disk."""
        flat = np.frombuffer(self.data, DTYPES[self.dtype], self.size, self.offset)
        return flat.reshape(self.shape)

    def drop(self) -> None:
        """Forget the pages that were read: a mapped file counts as memory of this process as long as they stay."""
        page = mmap.PAGESIZE
        start = self.offset // page * page
        length = self.offset + self.size * DTYPES[self.dtype].itemsize - start
        if length and hasattr(self.data, "madvise"):
            self.data.madvise(mmap.MADV_DONTNEED, start, length)


class Checkpoint(Mapping[str, Stored]):
    """The tensors of all weight files by name."""

    def __init__(self, source: Source) -> None:
        self._tensors: dict[str, Stored] = {}
        names = weight_files(source)
        if not names:
            raise ConvertError("unknown tensor format")
        for name in names:
            for tensor in read_file(name, source.path(name)):
                if tensor.name in self._tensors:
                    raise ConvertError(f"duplicate tensor name '{tensor.name}' was found for this model")
                self._tensors[tensor.name] = tensor
        _check_index(source, self._tensors)

    def __getitem__(self, name: str) -> Stored:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def weight_files(source: Source) -> list[str]:
    """Weight files at the root. Where a repository holds the same weights twice, as `model*` and `consolidated*`, the first."""
    found = sorted(name for name in source.files if name.endswith(".safetensors") and "/" not in name)
    return [name for name in found if name.startswith("model")] or found


def _check_index(source: Source, tensors: Mapping[str, Stored]) -> None:
    """An index that names tensors which are nowhere belongs to a download that is not complete."""
    index = source.json_or_empty("model.safetensors.index.json").get("weight_map", {})
    if not isinstance(index, dict):
        raise ConvertError("parse model.safetensors.index.json: 'weight_map' is no object")
    missing = sorted({str(index[name]) for name in index if name not in tensors})
    if missing:
        raise ConvertError(f"missing or incomplete model files: {', '.join(missing)}")


def read_file(name: str, path: Path) -> list[Stored]:
    """The tensors of one file, sorted by name; ConvertError for a file that breaks a rule of the format."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise ConvertError(f"{name}: the file ends within its header")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(MAX_HEADER, size - 8):
        raise ConvertError(f"{name}: a header of {length} bytes does not fit the file")
    header = _header(name, data[8 : 8 + length])
    begin = 8 + length
    return [_tensor(name, key, header[key], data, begin) for key in sorted(header) if key != "__metadata__"]


def _header(name: str, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConvertError(f"{name}: the header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise ConvertError(f"{name}: the header is no JSON object")
    return header


def _tensor(file: str, name: str, entry: Any, data: mmap.mmap, begin: int) -> Stored:
    where = f"{file}: tensor {name!r}"
    if not isinstance(entry, dict):
        raise ConvertError(f"{where} has no description")
    dtype, shape, place = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ConvertError(f"unknown data type: {dtype}")
    if not _are_counts(shape) or len(shape) > MAX_DIMS:
        raise ConvertError(f"{where} has the shape {shape!r}")
    if not _are_counts(place) or len(place) != 2 or not place[0] <= place[1] <= len(data) - begin:
        raise ConvertError(f"{where} lies at {place!r}, outside of the file")
    if place[1] - place[0] != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ConvertError(f"{where} has {place[1] - place[0]} bytes for the shape {shape} of {dtype}")
    return Stored(name, dtype, tuple(shape) or (1,), data, begin + place[0])


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 62 for n in value)
