"""Values with Go's types: as much of package reflect as templates need.

A `Value` is a type and Python data; `None` in the place of a Value is Go's invalid value, which an untyped nil gives. Data by
kind: bool, int, float, complex, str; a slice is a sequence or a Window of one, a map a dict with str keys, a struct a dict
by field name, a pointer the data it points to, each of them None where Go has nil; an interface holds a Value or None.
Plain Python data (from JSON) gets its type when it is looked at, see `of`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ollama_compat.template.gotemplate.literals import to_bytes


class Kind(enum.Enum):
    """The value of each member is the type's name where it has no other."""

    BOOL = "bool"
    INT = "int"
    UINT8 = "uint8"
    FLOAT64 = "float64"
    COMPLEX128 = "complex128"
    STRING = "string"
    SLICE = "slice"
    MAP = "map"
    STRUCT = "struct"
    POINTER = "ptr"
    INTERFACE = "interface"


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Field:
    """A field of a struct. `json` is its name in JSON, by default its own."""

    name: str
    type: Type
    json: str = ""
    omitempty: bool = False


@dataclasses.dataclass(eq=False, slots=True)
class Type:
    """Types are compared by identity. `methods` take a value and give a string; one named String is used in printing.

    Whoever makes a type that contains itself sets its `fields` afterwards; otherwise types never change.
    """

    kind: Kind
    name: str
    elem: Any = None  # Type of what a slice, map or pointer holds
    fields: tuple[Field, ...] = ()
    methods: Mapping[str, Callable[[Value], str]] = dataclasses.field(default_factory=dict)
    marshal: Callable[[Value], str] | None = None  # JSON text, where it is not what the kind gives

    def field(self, name: str) -> Field | None:
        """The field called `name`, exported or not."""
        return next((field for field in self.fields if field.name == name), None)


class Value:
    """A value of a known type."""

    __slots__ = ("data", "type")

    def __init__(self, type: Type, data: Any) -> None:
        self.type = type
        self.data = data

    def __repr__(self) -> str:
        return f"Value({self.type.name}, {self.data!r})"


class Window(NamedTuple):
    """`items[start:stop]` without the copy; it can be sliced again up to `end`, Go's capacity."""

    items: Sequence[Any]
    start: int
    stop: int
    end: int


BOOL = Type(Kind.BOOL, "bool")
INT = Type(Kind.INT, "int")
UINT8 = Type(Kind.UINT8, "uint8")
FLOAT64 = Type(Kind.FLOAT64, "float64")
COMPLEX128 = Type(Kind.COMPLEX128, "complex128")
STRING = Type(Kind.STRING, "string")
ANY = Type(Kind.INTERFACE, "interface {}")


def slice_of(elem: Type) -> Type:
    return Type(Kind.SLICE, f"[]{elem.name}", elem)


def map_of(elem: Type) -> Type:
    """A map with string keys."""
    return Type(Kind.MAP, f"map[string]{elem.name}", elem)


def pointer_to(elem: Type) -> Type:
    return Type(Kind.POINTER, f"*{elem.name}", elem)


SLICE = slice_of(ANY)
BYTES = slice_of(UINT8)
STRINGS = slice_of(STRING)
MAP = map_of(ANY)

_PLAIN = {
    bool: BOOL, int: INT, float: FLOAT64, complex: COMPLEX128, str: STRING, list: SLICE, tuple: SLICE, dict: MAP, bytes: BYTES
}  # fmt: skip
_BASIC = (Kind.BOOL, Kind.INT, Kind.UINT8, Kind.FLOAT64, Kind.COMPLEX128, Kind.STRING)
_NILLABLE = (Kind.SLICE, Kind.MAP, Kind.POINTER, Kind.INTERFACE)
_ZEROS = {
    Kind.BOOL: False, Kind.INT: 0, Kind.UINT8: 0, Kind.FLOAT64: 0.0, Kind.COMPLEX128: 0j, Kind.STRING: ""
}  # fmt: skip


def of(data: Any) -> Value | None:
    """The Value of plain Python data; an unknown class is a mistake of ours."""
    if data is None or isinstance(data, Value):
        return data
    found = _PLAIN.get(type(data))
    if found is not None:
        return Value(found, data)
    return Value(next(kind for base, kind in _PLAIN.items() if isinstance(data, base)), data)


def typed(type: Type, data: Any) -> Value:
    """A Value of static type `type`: in an `any` the data keeps a type of its own."""
    return Value(type, of(data)) if type is ANY else Value(type, data)


def zero(type: Type) -> Value:
    """The zero value of the type."""
    if type.kind is Kind.STRUCT:
        return Value(type, {field.name: zero(field.type).data for field in type.fields})
    return Value(type, _ZEROS.get(type.kind))


def is_basic(value: Value | None) -> bool:
    """Whether eq and lt compare it by what it holds."""
    return value is not None and value.type.kind in _BASIC


def is_nil(value: Value | None) -> bool:
    """Whether it is nil of whatever type."""
    return value is None or (value.type.kind in _NILLABLE and value.data is None)


def unwrap(value: Value | None) -> Value | None:
    """What an interface holds; other values themselves."""
    if value is None or value.type.kind is not Kind.INTERFACE:
        return value
    inner: Value | None = value.data
    return inner


def indirect(value: Value | None) -> tuple[Value | None, bool]:
    """The value behind pointers and interfaces. True when there is none: then the value is the nil pointer or interface."""
    while value is not None and value.type.kind in (Kind.POINTER, Kind.INTERFACE):
        if value.data is None:
            return value, True
        value = value.data if value.type.kind is Kind.INTERFACE else Value(value.type.elem, value.data)
    return value, False


def is_true(value: Value | None) -> bool:
    """Go's truth: not the zero of its type; a struct is always true."""
    value = unwrap(value)
    if value is None:
        return False
    match value.type.kind:
        case Kind.SLICE | Kind.MAP:
            return length(value) > 0
        case Kind.STRUCT:
            return True
        case Kind.POINTER:
            return value.data is not None
    return bool(value.data)


def window(value: Value) -> Window:
    """The elements of a slice."""
    data = value.data
    if isinstance(data, Window):
        return data
    return Window((), 0, 0, 0) if data is None else Window(data, 0, len(data), len(data))


def length(value: Value) -> int:
    """Length of a string in bytes, of a slice or map in elements."""
    if value.type.kind is Kind.STRING:
        text: str = value.data
        return len(text) if text.isascii() else len(to_bytes(text))
    if value.type.kind is Kind.SLICE:
        _, start, stop, _ = window(value)
        return stop - start
    return len(value.data or ())


def element(value: Value, index: int) -> Value:
    """Element `index` of a slice, which has one."""
    items, start, _, _ = window(value)
    return typed(value.type.elem, items[start + index])


def elements(value: Value) -> list[Any]:
    """The data of the elements of a slice."""
    items, start, stop, _ = window(value)
    return [items[index] for index in range(start, stop)]


def entries(value: Value) -> list[tuple[str, Any]]:
    """Keys and data of a map, in the order of their bytes, as Go prints and ranges."""
    return sorted((value.data or {}).items(), key=lambda entry: to_bytes(entry[0]))
