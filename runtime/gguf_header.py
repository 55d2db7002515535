"""The header of one GGUF file: version, metadata and the tensor table, with every number checked before its use.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import dataclasses
import math

from runtime.gguf_metadata import MIN_PAIR_BYTES, Cursor, Metadata
from runtime.gguf_types import REMOVED_TYPES, TYPES, GGMLType

MAX_DIMS = 4
MAX_NAME = 63  # bytes; ggml keeps names in 64 with a closing NUL
MAX_ELEMENTS = (1 << 63) - 1  # ggml counts in int64

_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8  # length of the name, dimensions, type, offset


@dataclasses.dataclass(frozen=True, slots=True)
class TensorInfo:
    """A line of the tensor table. `shape[0]` is the length of a row; `offset` counts from the start of its file."""

    name: str
    shape: tuple[int, ...]  # 1 to 4 numbers, ggml's order
    type_id: int
    type_name: str
    offset: int
    nbytes: int
    part: int = 0  # which of the files of a split model holds it


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    version: int
    metadata: Metadata
    tensors: dict[str, TensorInfo]  # in the file's order
    alignment: int
    data_offset: int


def read_header(cursor: Cursor, part: int) -> Header:
    """The header that the cursor stands before; GGUFError when it breaks a rule of the format."""
    version = _read_version(cursor)
    n_tensors = cursor.count("the tensor count", _MIN_TENSOR_BYTES)
    n_keys = cursor.count("the key count", MIN_PAIR_BYTES)
    metadata = Metadata(cursor, n_keys)
    alignment = _alignment(metadata)
    table = _read_table(cursor, n_tensors, part)
    # a file without tensors (a vocabulary) need not be padded up to its empty data
    data_offset = -(-cursor.pos // alignment) * alignment if table else cursor.pos
    return Header(version, metadata, _place(cursor, table, alignment, data_offset), alignment, data_offset)


def _read_version(cursor: Cursor) -> int:
    magic = cursor.data[: cursor.take(4, "the magic number") + 4]
    if magic != b"GGUF":
        raise cursor.error("the magic number", f"is {magic!r} and not b'GGUF'", 0)
    version = cursor.u32("the version")
    if version and not version & 0xFFFF:
        raise cursor.error("the version", "this is a big-endian file, which is not supported", 4)
    if version == 1:
        raise cursor.error("the version", "GGUF version 1 is not supported; convert the model again", 4)
    if version not in (2, 3):
        raise cursor.error("the version", f"{version} is neither 2 nor 3", 4)
    return version


def _alignment(metadata: Metadata) -> int:
    key = "general.alignment"
    if key not in metadata:
        return 32
    if metadata.type_name(key) != "uint32":
        raise metadata.error(key, f"must be uint32, not {metadata.type_name(key)}")
    value = int(metadata[key])
    if value == 0 or value & (value - 1):
        raise metadata.error(key, f"{value} is not a power of two")
    return value


def _read_table(cursor: Cursor, count: int, part: int) -> list[tuple[int, TensorInfo]]:
    """The table as it stands: where each entry starts, and the entry with its offset counted from the data."""
    seen: set[str] = set()
    table = []
    for _ in range(count):
        start = cursor.pos
        name = cursor.text("a tensor name", MAX_NAME)
        if not name:
            raise cursor.error("a tensor name", "is empty", start)
        if name in seen:
            raise cursor.error(f"tensor {name!r}", "appears twice", start)
        seen.add(name)
        table.append((start, _read_tensor(cursor, name, part)))
    return table


def _read_tensor(cursor: Cursor, name: str, part: int) -> TensorInfo:
    where = f"tensor {name!r}"
    shape = _read_shape(cursor, where)
    kind = _read_type(cursor, where, shape[0])
    nbytes = math.prod(shape) // kind.block_size * kind.block_bytes
    return TensorInfo(name, shape, kind.id, kind.name, cursor.u64(where), nbytes, part)


def _read_shape(cursor: Cursor, where: str) -> tuple[int, ...]:
    start = cursor.pos
    n_dims = cursor.u32(where)
    if n_dims > MAX_DIMS:
        raise cursor.error(where, f"has {n_dims} dimensions, more than {MAX_DIMS}", start)
    shape = tuple(cursor.u64(where) for _ in range(n_dims)) or (1,)
    if math.prod(n or 1 for n in shape) > MAX_ELEMENTS:
        raise cursor.error(where, f"has too many elements: {shape}", start)
    return shape


def _read_type(cursor: Cursor, where: str, row: int) -> GGMLType:
    start = cursor.pos
    type_id = cursor.u32(where)
    if type_id in REMOVED_TYPES:
        raise cursor.error(where, f"has type {type_id} ({REMOVED_TYPES[type_id]}), which was removed from the format", start)
    if type_id not in TYPES:
        raise cursor.error(where, f"has the unknown type {type_id}", start)
    kind = TYPES[type_id]
    if row % kind.block_size:
        raise cursor.error(where, f"rows of {row} elements are no whole blocks of {kind.block_size} ({kind.name})", start)
    return kind


def _place(cursor: Cursor, table: list[tuple[int, TensorInfo]], alignment: int, base: int) -> dict[str, TensorInfo]:
    """The tensors, their offsets counted from the file's start: all aligned, inside the file and apart from each other."""
    tensors = {}
    for start, info in table:
        where = f"tensor {info.name!r}"
        offset = base + info.offset
        if info.offset % alignment:
            raise cursor.error(where, f"its offset {info.offset} is no multiple of the alignment {alignment}", start)
        if offset + info.nbytes > cursor.size:
            raise cursor.error(where, f"its {info.nbytes} bytes from {offset} on end beyond the file's {cursor.size}", start)
        tensors[info.name] = dataclasses.replace(info, offset=offset)
    _check_overlap(cursor, tensors)
    return tensors


def _check_overlap(cursor: Cursor, tensors: dict[str, TensorInfo]) -> None:
    end, last = 0, ""
    for info in sorted((info for info in tensors.values() if info.nbytes), key=lambda info: info.offset):
        if info.offset < end:
            raise cursor.error(f"tensor {info.name!r}", f"overlaps tensor {last!r}", info.offset)
        end, last = info.offset + info.nbytes, info.name
