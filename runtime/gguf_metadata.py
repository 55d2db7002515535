"""The keys and values of a GGUF file, read over mmap with every number checked before its use.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import array
import dataclasses
import mmap
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runtime.gguf_types import ARRAY, BOOL, STRING, VALUE_TYPES, ValueType

MAX_KEY = 65535  # bytes, by the format's description
MAX_STRING = 16 << 20  # bytes
MAX_ARRAY = 64 << 20  # items
MIN_PAIR_BYTES = 8 + 4 + 1  # length of the key, type, one byte of value

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class GGUFError(Exception):
    """A file is no valid GGUF. `where` is the key or tensor (or a part of the header), `offset` the byte in the file."""

    def __init__(self, path: Path, where: str, offset: int, problem: str) -> None:
        super().__init__(f"{path.name}: {where} at byte {offset}: {problem}")
        self.path = path
        self.where = where
        self.offset = offset


class Cursor:
    """A place in the mapped file that only moves forward, and only over bytes that exist."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.pos = 0

    def error(self, where: str, problem: str, offset: int | None = None) -> GGUFError:
        return GGUFError(self.path, where, self.pos if offset is None else offset, problem)

    def take(self, n: int, where: str) -> int:
        """Move over `n` bytes and return where they start."""
        start = self.pos
        if n > self.size - start:
            raise self.error(where, f"needs {n} bytes, but the file ends after {self.size - start}")
        self.pos = start + n
        return start

    def u32(self, where: str) -> int:
        return int(_U32.unpack_from(self.data, self.take(4, where))[0])

    def u64(self, where: str) -> int:
        return int(_U64.unpack_from(self.data, self.take(8, where))[0])

    def count(self, where: str, item_bytes: int) -> int:
        """A u64 that announces items of at least `item_bytes` each; checked against what is left of the file."""
        start = self.pos
        n = self.u64(where)
        if n > (self.size - self.pos) // item_bytes:
            raise self.error(where, f"{n} entries do not fit into the {self.size - self.pos} bytes that follow", start)
        return n

    def text(self, where: str, limit: int) -> str:
        start = self.pos
        n = self.u64(where)
        if n > limit:
            raise self.error(where, f"a string of {n} bytes is longer than {limit}", start)
        begin = self.take(n, where)
        try:
            return self.data[begin : begin + n].decode()
        except UnicodeDecodeError as error:
            raise self.error(where, f"is not UTF-8: {error.reason}", begin + error.start) from error


@dataclasses.dataclass(frozen=True, slots=True)
class _Array:
    """An array that nobody has asked for yet: `count` items that fill the bytes [start, end)."""

    type: ValueType
    count: int
    start: int
    end: int


@dataclasses.dataclass(slots=True)
class _Entry:
    type_name: str
    offset: int  # of the value
    end: int
    value: Any


class Metadata(Mapping[str, Any]):
    """The file's keys and values.

    Numbers are int or float, numeric arrays array.array, arrays of booleans and of strings list. An array is decoded at its
    first use, which may raise GGUFError.
    """

    def __init__(self, cursor: Cursor, count: int) -> None:
        self._cursor = cursor
        self._entries: dict[str, _Entry] = {}
        for _ in range(count):
            self._read()

    def _read(self) -> None:
        cursor = self._cursor
        start = cursor.pos
        key = cursor.text("a key", MAX_KEY)
        if not key:
            raise cursor.error("a key", "is empty", start)
        if key in self._entries:
            raise cursor.error(f"key {key!r}", "appears twice", start)
        self._entries[key] = _read_value(cursor, f"key {key!r}")

    def __getitem__(self, key: str) -> Any:
        entry = self._entries[key]
        if isinstance(entry.value, _Array):
            entry.value = _decode_array(self._cursor, entry.value, f"key {key!r}")
        return entry.value

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def type_name(self, key: str) -> str:
        """The value's type in the file: "uint32", "string", "array[string]", ..."""
        return self._entries[key].type_name

    def array_length(self, key: str) -> int | None:
        """Items of an array, without decoding it; None for a value that is no array."""
        value = self._entries[key].value
        if isinstance(value, _Array):
            return value.count
        return len(value) if isinstance(value, list | array.array) else None

    def raw(self, key: str) -> bytes:
        """The value as it stands in the file, with its type before it."""
        entry = self._entries[key]
        return self._cursor.data[entry.offset - _U32.size : entry.end]

    def error(self, key: str, problem: str) -> GGUFError:
        """An error about `key`, whose value breaks a rule of the caller."""
        offset = self._entries[key].offset if key in self._entries else 0
        return self._cursor.error(f"key {key!r}", problem, offset)

    def close(self) -> None:
        """Unmap the file. Arrays that were not used by now are gone."""
        self._cursor.data.close()


def _read_value(cursor: Cursor, where: str) -> _Entry:
    kind = _value_type(cursor, where)
    offset = cursor.pos
    if kind is VALUE_TYPES[ARRAY]:
        items = _skip_array(cursor, where)
        return _Entry(f"array[{items.type.name}]", offset, cursor.pos, items)
    if kind is VALUE_TYPES[STRING]:
        text = cursor.text(where, MAX_STRING)
        return _Entry(kind.name, offset, cursor.pos, text)
    (value,) = struct.unpack_from("<" + kind.code, cursor.data, cursor.take(kind.size, where))
    if kind is VALUE_TYPES[BOOL]:
        if value > 1:
            raise cursor.error(where, f"is a bool, but holds {value}", offset)
        value = bool(value)
    return _Entry(kind.name, offset, cursor.pos, value)


def _value_type(cursor: Cursor, where: str) -> ValueType:
    start = cursor.pos
    type_id = cursor.u32(where)
    if type_id not in VALUE_TYPES:
        raise cursor.error(where, f"has the unknown value type {type_id}", start)
    return VALUE_TYPES[type_id]


def _skip_array(cursor: Cursor, where: str) -> _Array:
    kind = _value_type(cursor, where)
    if kind is VALUE_TYPES[ARRAY]:
        raise cursor.error(where, "is an array of arrays, which is not supported", cursor.pos - 4)
    count = cursor.count(where, kind.size or 8)
    if count > MAX_ARRAY:
        raise cursor.error(where, f"an array of {count} items is longer than {MAX_ARRAY}", cursor.pos - 8)
    start = cursor.pos
    if kind is VALUE_TYPES[STRING]:
        _skip_strings(cursor, count, where)
    else:
        cursor.take(count * kind.size, where)
    return _Array(kind, count, start, cursor.pos)


def _skip_strings(cursor: Cursor, count: int, where: str) -> None:
    """Walk over strings. The loop runs once for every token of a vocabulary, so it is kept bare."""
    unpack, data, pos, last = _U64.unpack_from, cursor.data, cursor.pos, cursor.size - 8
    for _ in range(count):
        if pos > last:
            break
        pos += 8 + unpack(data, pos)[0]
    else:
        last = cursor.size
    if pos > last:
        raise cursor.error(where, "its strings go beyond the end of the file")
    cursor.pos = pos


def _decode_array(cursor: Cursor, items: _Array, where: str) -> Any:
    if items.type is VALUE_TYPES[STRING]:
        return _decode_strings(cursor, items, where)
    numbers = array.array(items.type.code)
    with memoryview(cursor.data) as view, view[items.start : items.end] as raw:
        numbers.frombytes(raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    if items.type is not VALUE_TYPES[BOOL]:
        return numbers
    if wrong := sum(number > 1 for number in numbers):
        raise cursor.error(where, f"is an array of bools, but {wrong} of them are neither 0 nor 1", items.start)
    return [number == 1 for number in numbers]


def _decode_strings(cursor: Cursor, items: _Array, where: str) -> list[str]:
    data, unpack, pos = cursor.data[items.start : items.end], _U64.unpack_from, 0
    texts: list[str] = []
    start = 0
    try:
        for _ in range(items.count):
            start = pos + 8
            pos = start + unpack(data, pos)[0]
            texts.append(data[start:pos].decode())
    except UnicodeDecodeError as error:
        offset = items.start + start + error.start
        raise cursor.error(where, f"item {len(texts)} is not UTF-8: {error.reason}", offset) from error
    return texts
