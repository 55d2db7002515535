"""Kinds of JSON values and how Go decodes each: what it accepts, what it ignores, and its words for what it refuses.

Go's decoder goes on after a value of the wrong type and reports the first such fault at the end, while an error of a type's own
decoder (durations, think, messages) ends it at once; both habits are kept, because they decide which text a client sees.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ollama_compat import duration
from ollama_compat.errors import BadRequest
from ollama_compat.gojson import Number, plain


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


class Stopped(Exception):
    """A type's own decoder met a fault: decoding ends with it."""

    def __init__(self, fault: TypeFault) -> None:
        super().__init__(fault.text())
        self.fault = fault


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: the struct whose field it is, the names of the fields down to it, and the faults so far."""

    struct: str
    path: tuple[str, ...]
    faults: list[TypeFault]

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


@accepts(type="number")
def float64(value: Any, at: Place) -> float | None:
    if isinstance(value, Number) and value.is_float:
        return float(value)
    at.refuse(value, "float64", quote_number=isinstance(value, Number))
    return None


def anything(value: Any, at: Place) -> Any:
    """Go's `any`: numbers have to fit a float64."""
    if isinstance(value, Number) and not value.is_float:
        at.refuse(value, "float64", quote_number=True)
        return None
    return plain(value)


def raw(value: Any, at: Place) -> Any:
    """Kept as it was read, numbers and all."""
    return value


def array(kind: Kind, go_type: str, *, nulls: bool = False) -> Kind:
    """A list of `kind`. Null elements are left out, but where `nulls` of an `any` are values like others."""

    @accepts(type="array", items=schema_of(kind))
    def decode(value: Any, at: Place) -> list[Any] | None:
        if not isinstance(value, list):
            at.refuse(value, go_type)
            return None
        items = [None if item is None else kind(item, at) for item in value]
        return [item for item in items if nulls or item is not None]

    return decode


def mapping(kind: Kind, go_type: str) -> Kind:
    """An object with values of `kind`; null values stay null."""

    @accepts(type="object", additionalProperties=schema_of(kind))
    def decode(value: Any, at: Place) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            at.refuse(value, go_type)
            return None
        return {key: None if item is None else kind(item, at) for key, item in value.items()}

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
    pairs = ((key if key in names else folded.get(key.casefold()), item) for key, item in value.items())
    return [(name, item) for name, item in pairs if name is not None]


def struct(name: str, members: Sequence[Member], package: str = "api") -> Kind:
    """A nested Go struct, as a dict in the order and with the omissions with which Go would write it again."""
    by_name = {member.name: member for member in members}

    @accepts(type="object", properties={member.name: schema_of(member.kind) for member in members})
    def decode(value: Any, at: Place) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            at.refuse(value, f"{package}.{name}")
            return None
        got: dict[str, Any] = {}
        for key, item in match_members(value, by_name):
            decoded = None if item is None else by_name[key].kind(item, at.field(name, key))
            if decoded is not None:
                got[key] = decoded
        return {m.name: got.get(m.name, m.zero) for m in members if not m.omit or got.get(m.name, m.zero) != m.zero}

    return decode


def ordered(kind: Kind, at_fault: str) -> Kind:
    """An object whose order counts, with values of `kind`; another type is an error of that decoder, `at_fault`."""

    @accepts(type="object", additionalProperties=schema_of(kind))
    def decode(value: Any, at: Place) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise BadRequest(at_fault)
        inner = Place(at.struct, at.path, [])
        result = {key: None if item is None else kind(item, inner) for key, item in value.items()}
        if inner.faults:
            raise Stopped(inner.faults[0])
        return result

    return decode


def apart(kind: Kind) -> Kind:
    """`kind` decoded by a decoder of its own, whose first fault ends the outer one."""

    @accepts(**schema_of(kind))
    def decode(value: Any, at: Place) -> Any:
        inner = Place(at.struct, at.path, [])
        result = kind(value, inner)
        if inner.faults:
            raise Stopped(dataclasses.replace(inner.faults[0], struct=at.struct))
        return result

    return decode


@accepts(type=["string", "number"], description="seconds, or a duration such as 5m; negative: for ever")
def keep_alive(value: Any, at: Place) -> float | None:
    """Seconds from a number or a duration; negative is for ever (`math.inf`).

    Ollama refuses the bare text `"-1"`, which many clients send; here it is for ever as well.
    """
    if isinstance(value, Number):
        if not value.is_float:
            at.refuse(value, "float64", quote_number=True)
            raise Stopped(at.faults[-1])
        return _endless(float(value))
    if isinstance(value, str):
        if value.startswith("-") and value[1:].isdigit():
            return math.inf
        try:
            return _endless(duration.parse(value) / duration.SECOND)
        except duration.DurationError as error:
            raise BadRequest(str(error)) from error
    names = {bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}
    raise BadRequest(f"Unsupported type: '{names[type(value)]}'")


def _endless(seconds: float) -> float:
    return math.inf if seconds < 0 or seconds > duration.FOREVER / duration.SECOND else seconds


@accepts(type=["boolean", "string"], description="true, false, high, medium, low or max")
def think(value: Any, at: Place) -> bool | str:
    """True, false, or a level."""
    levels = '"high", "medium", "low", "max", true, or false'
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or isinstance(value, Number):
        raise BadRequest(f"think must be a boolean or string ({levels})")
    if value not in ("high", "medium", "low", "max"):
        raise BadRequest(f"invalid think value: {duration.quote(value)} (must be {levels})")
    return value
