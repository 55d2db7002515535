"""Opens GGUF files (v2 and v3, little endian), split ones too. Standard library only: both worlds read headers with it.

Nothing in a file is trusted. Every count, length, offset, type and shape is held against the bytes that are really there
before it is used, so that a hostile file costs an error and never memory beyond its own size. Arrays stay undecoded until
somebody asks for them: a vocabulary of 150,000 tokens is walked over, not turned into strings, when the file is opened.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from pathlib import Path
from types import TracebackType

from runtime.gguf_header import Header, TensorInfo, read_header
from runtime.gguf_metadata import Cursor, GGUFError, Metadata
from runtime.gguf_types import TYPES, GGMLType
from runtime.gguf_writer import head, padded, placed, whole

__all__ = ["TYPES", "GGMLType", "GGUFError", "GGUFFile", "Metadata", "TensorInfo", "open_gguf"]
__all__ += ["head", "padded", "placed", "whole"]

MAX_PARTS = 65535  # split.count is a uint16

_SPLIT_NAME = re.compile(r"(?P<stem>.*)-00001-of-(?P<count>\d{5})\.gguf", re.DOTALL)


class GGUFFile:
    """An open GGUF file, or all files of a split one. Close it, or use it as a context manager."""

    def __init__(self, parts: list[Path], header: Header, tensors: dict[str, TensorInfo], size: int) -> None:
        self.path = parts[0]
        self.parts = parts
        self.version = header.version
        self.metadata = header.metadata
        self.alignment = header.alignment
        self.data_offset = header.data_offset  # in the first part
        self.tensors = tensors  # in the order of the files
        self.size = size  # bytes of all parts

    def close(self) -> None:
        """Unmap the file. Arrays of the metadata that were not used by now are gone."""
        self.metadata.close()

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_gguf(path: str | os.PathLike[str], follow_split: bool = True) -> GGUFFile:
    """Open a GGUF file and read its header.

    The first file of a split model opens the others too, unless `follow_split` is off. Raises GGUFError for a file that is
    not valid, OSError for one that cannot be read.
    """
    path = Path(path)
    cursor = _map(path)
    try:
        header = read_header(cursor, part=0)
        if follow_split and header.metadata.get("split.count", 1) != 1:
            return _open_parts(cursor, header)
        return GGUFFile([path], header, header.tensors, cursor.size)
    except BaseException:  # nobody else holds the mapping
        cursor.data.close()
        raise


def _map(path: Path) -> Cursor:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for a writer
        raise GGUFError(path, "the file", 0, "is no regular file")
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise GGUFError(path, "the magic number", 0, "the file is empty")
        return Cursor(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _open_parts(first: Cursor, header: Header) -> GGUFFile:
    parts = _part_paths(first.path, header.metadata)
    tensors = dict(header.tensors)
    size = first.size
    for number, path in enumerate(parts[1:], 1):
        if not path.is_file():
            raise header.metadata.error("split.count", f"the part {path.name} is missing")
        cursor = _map(path)
        with cursor.data:
            _add_part(tensors, read_header(cursor, number), number, len(parts))
        size += cursor.size
    expected = _integer(header.metadata, "split.tensors.count")
    if expected != len(tensors):
        raise header.metadata.error("split.tensors.count", f"promises {expected} tensors, the parts hold {len(tensors)}")
    return GGUFFile(parts, header, tensors, size)


def _part_paths(path: Path, metadata: Metadata) -> list[Path]:
    count = _integer(metadata, "split.count")
    number = _integer(metadata, "split.no")
    if not 1 < count <= MAX_PARTS:
        raise metadata.error("split.count", f"{count} is no possible number of parts")
    if number != 0:
        raise metadata.error("split.no", f"this is part {number + 1} of {count}; open the first one")
    match = _SPLIT_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        raise metadata.error("split.count", f"the file is not named <name>-00001-of-{count:05}.gguf")
    return [path.with_name(f"{match['stem']}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]


def _add_part(tensors: dict[str, TensorInfo], header: Header, number: int, count: int) -> None:
    for key, expected in (("split.no", number), ("split.count", count)):
        if (value := _integer(header.metadata, key)) != expected:
            raise header.metadata.error(key, f"is {value} in this part and should be {expected}")
    if twice := tensors.keys() & header.tensors.keys():
        raise header.metadata.error("split.no", f"the part repeats the tensor {min(twice)!r}")
    tensors.update(header.tensors)


def _integer(metadata: Metadata, key: str) -> int:
    value = metadata.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise metadata.error(key, "is missing or no integer")
    return value
