"""The header of a GGUF file (version 3), from values that are bytes already. Standard library only, as the reader."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Iterator, Mapping

from runtime.gguf_header import TensorInfo
from runtime.gguf_metadata import Metadata

_UINT32, _STRING = 4, 8
_SPLIT = ("split.no", "split.count", "split.tensors.count")


def padded(n: int, alignment: int) -> int:
    """`n` bytes up to the next border."""
    return -(-n // alignment) * alignment


def whole(metadata: Metadata) -> dict[str, bytes]:
    """Every value as it stands in a file, in its order, without what says that the file is one of several."""
    architecture = metadata.get("general.architecture")
    dropped = {*_SPLIT, *(f"{architecture}.{key}" for key in _SPLIT)}
    return {key: metadata.raw(key) for key in metadata if key not in dropped}


def uint32(value: int) -> bytes:
    """A value of that type."""
    return struct.pack("<II", _UINT32, value)


def string(text: str) -> bytes:
    """A value of that type."""
    return struct.pack("<I", _STRING) + _text(text)


def placed(tensors: Iterable[TensorInfo], alignment: int) -> Iterator[TensorInfo]:
    """The tensors one after the other: their offsets in a file's data."""
    offset = 0
    for tensor in tensors:
        yield dataclasses.replace(tensor, offset=offset)
        offset += padded(tensor.nbytes, alignment)


def head(values: Mapping[str, bytes], tensors: Iterable[TensorInfo], alignment: int) -> bytes:
    """All that comes before the data. The tensors' offsets are those of `placed`."""
    table = list(tensors)
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(table), len(values)))
    for key, value in values.items():
        out += _text(key) + value
    for tensor in table:
        out += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        out += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, tensor.type_id, tensor.offset)
    return bytes(out.ljust(padded(len(out), alignment), b"\0"))


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
