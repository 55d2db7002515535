"""Kinds of JSON values and how Go decodes each: what it accepts, what it ignores, and its words for what it refuses.

Go's decoder goes on after a value of the wrong type and reports the first such fault at the end, while an error of a type's own
decoder (durations, think, messages) ends it at once; both habits are kept, because they decide which text a client sees.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ollama_compat.errors import BadRequest
from ollama_compat.gojson import Number, members, plain


@dataclasses.dataclass(frozen=True, slots=True)
class TypeFault:
    """A JSON value that does not fit its Go type."""

    value: str  # "string", "number 1.5", ...
    struct: str
    path: tuple[str, ...]
    go_type: str

    def text(self) -> str:
        """Go's message."""
        where = f"struct field {self.struct}.{'.'.join(self.path)}" if self.path else "value"
        return f"json: cannot unmarshal {self.value} into Go {where} of type {self.go_type}"

    def seen_from(self, at: Place) -> TypeFault:
        """The fault as the decoder around `at` words it: by the struct that it is busy with itself."""
        return dataclasses.replace(self, struct=at.struct)


@dataclasses.dataclass(frozen=True, slots=True)
class OtherFault:
    """A value of the right type that is not what it has to be."""

    message: str

    def text(self) -> str:
        """Go's message."""
        return self.message

    def seen_from(self, at: Place) -> OtherFault:
        """The same."""
        return self


class Stopped(Exception):
    """A type's own decoder met a fault: decoding ends with it."""

    def __init__(self, fault: TypeFault | OtherFault) -> None:
        super().__init__(fault.text())
        self.fault = fault


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: the struct whose field it is, the names of the fields down to it, and the faults so far."""

    struct: str
    path: tuple[str, ...]
    faults: list[TypeFault | OtherFault]

    def field(self, struct: str, name: str) -> Place:
        """The place of a field of a struct that stands here."""
        return Place(struct, (*self.path, name), self.faults)

    def refuse(self, value: Any, go_type: str, *, quote_number: bool = False) -> None:
        """Note that the value here is not of `go_type`."""
        self.faults.append(TypeFault(word(value, quote_number), self.struct, self.path, go_type))


Kind: TypeAlias = Callable[[Any, Place], Any]
"""Decodes a value that is not null; None means that the field keeps its default."""

Schema: TypeAlias = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Described:
    """A kind that says as a JSON schema what it accepts."""

    schema: Schema
    decode: Kind

    def __call__(self, value: Any, at: Place) -> Any:
        return self.decode(value, at)


def accepts(**schema: Any) -> Callable[[Kind], Described]:
    """Describes the kind that follows."""
    return lambda kind: Described(schema, kind)


def schema_of(kind: Kind) -> Schema:
    """The JSON schema of what a kind accepts; the schema of anything where it does not say."""
    return kind.schema if isinstance(kind, Described) else {}


def word(value: Any, quote_number: bool = False) -> str:
    """What Go calls the JSON value."""
    if isinstance(value, Number):
        return f"number {value}" if quote_number else "number"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


@accepts(type="string")
def string(value: Any, at: Place) -> str | None:
    if isinstance(value, str) and not isinstance(value, Number):
        return value
    at.refuse(value, "string")
    return None


@accepts(type="boolean")
def boolean(value: Any, at: Place) -> bool | None:
    if isinstance(value, bool):
        return value
    at.refuse(value, "bool")
    return None


@accepts(type="integer")
def integer(value: Any, at: Place) -> int | None:
    if isinstance(value, Number) and value.is_int:
        return int(value)
    at.refuse(value, "int", quote_number=True)
    return None


def _floating(go_type: str, most: float) -> Kind:
    @accepts(type="number")
    def decode(value: Any, at: Place) -> float | None:
        if isinstance(value, Number) and abs(float(value)) <= most:
            return float(value)
        at.refuse(value, go_type, quote_number=isinstance(value, Number))
        return None

    return decode


float64 = _floating("float64", sys.float_info.max)
float32 = _floating("float32", 3.4028235677973362e38)  # what is less rounds to the largest one


def anything(value: Any, at: Place) -> Any:
    """Go's `any`: numbers have to fit a float64."""
    for number in _numbers(value):
        if not number.is_float:
            at.refuse(number, "float64", quote_number=True)
    return plain(value)


def _numbers(value: Any) -> Iterator[Number]:
    if isinstance(value, Number):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)


def raw(value: Any, at: Place) -> Any:
    """Kept as it was read, numbers and all."""
    return value


def array(kind: Kind, go_type: str, null: Any = None) -> Kind:
    """A list of `kind`. A null element is read as the JSON value `null`, the zero of its type; None: it stays null."""

    @accepts(type="array", items=schema_of(kind))
    def decode(value: Any, at: Place) -> list[Any] | None:
        if not isinstance(value, list):
            at.refuse(value, go_type)
            return None
        items = (null if item is None else item for item in value)
        return [None if item is None else kind(item, at) for item in items]

    return decode


def mapping(kind: Kind, go_type: str, null: Any = None) -> Kind:
    """An object with values of `kind`; `null` as for arrays."""

    @accepts(type="object", additionalProperties=schema_of(kind))
    def decode(value: Any, at: Place) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            at.refuse(value, go_type)
            return None
        items = ((key, null if item is None else item) for key, item in members(value))
        return {key: None if item is None else kind(item, at) for key, item in items}

    return decode


@accepts(type="object")
def options(value: Any, at: Place) -> dict[str, Any] | None:
    """`map[string]any` of which null entries are kept, since they mean absent later on."""
    decoded: dict[str, Any] | None = mapping(anything, "map[string]interface {}")(value, at)
    return decoded


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A field of a Go struct: its JSON name, its kind, its zero, and whether Go leaves it out when it is zero."""

    name: str
    kind: Kind
    zero: Any = ""
    omit: bool = True


def match_members(value: Mapping[str, Any], names: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(declared name, value) of the entries that name one of `names`, in document order: exactly, else by case folding."""
    folded = {name.casefold(): name for name in names}
    pairs = ((key if key in names else folded.get(key.casefold()), item) for key, item in members(value))
    return [(name, item) for name, item in pairs if name is not None]


def struct(name: str, fields: Sequence[Member], package: str = "api", go_type: str = "") -> Kind:
    """A nested Go struct, as a dict in the order and with the omissions with which Go would write it again.

    `go_type`: what Go calls it where that is not its name in its package.
    """
    by_name = {member.name: member for member in fields}

    @accepts(type="object", properties={member.name: schema_of(member.kind) for member in fields})
    def decode(value: Any, at: Place) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            at.refuse(value, go_type or f"{package}.{name}")
            return None
        got: dict[str, Any] = {}
        for key, item in match_members(value, by_name):
            decoded = None if item is None else by_name[key].kind(item, at.field(name, key))
            if decoded is not None:
                got[key] = decoded
        return {m.name: got.get(m.name, m.zero) for m in fields if not m.omit or got.get(m.name, m.zero) != m.zero}

    return decode


def ordered(kind: Kind, null: Any = None) -> Kind:
    """An object whose order counts, with values of `kind`, by a decoder of its own; `null` as for arrays."""
    decode_members = apart(mapping(kind, "", null))

    @accepts(type="object", additionalProperties=schema_of(kind))
    def decode(value: Any, at: Place) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise BadRequest("Value looks like object, but can't find closing '}' symbol")
        decoded: dict[str, Any] = decode_members(value, at)
        return decoded

    return decode


def apart(kind: Kind) -> Kind:
    """`kind` decoded by a decoder of its own, whose first fault ends the outer one."""

    @accepts(**schema_of(kind))
    def decode(value: Any, at: Place) -> Any:
        inner = Place(at.struct, at.path, [])
        try:
            result = kind(value, inner)
        except Stopped as stopped:
            raise Stopped(stopped.fault.seen_from(at)) from None
        if inner.faults:
            raise Stopped(inner.faults[0].seen_from(at))
        return result

    return decode
