"""JSON as Go's encoding/json writes it: sorted keys of maps, fields of structs in their order, `<`, `>` and `&` escaped."""

from __future__ import annotations

import base64
import math
import re

from ollama_compat.template.gotemplate import values
from ollama_compat.template.gotemplate.floats import format_json
from ollama_compat.template.gotemplate.literals import is_byte
from ollama_compat.template.gotemplate.values import Kind, Value


class MarshalError(Exception):
    """The value has no JSON form."""


def marshal(value: Value | None) -> str:
    """The JSON text of the value. Raises MarshalError."""
    if value is None:
        return "null"
    if value.type.marshal is not None:
        return value.type.marshal(value)
    match value.type.kind:
        case Kind.BOOL:
            return "true" if value.data else "false"
        case Kind.INT | Kind.UINT8:
            return str(value.data)
        case Kind.FLOAT64:
            return _float(value.data)
        case Kind.STRING:
            return json_string(value.data)
        case Kind.SLICE:
            return _slice(value)
        case Kind.MAP:
            return _map(value)
        case Kind.STRUCT:
            return _struct(value)
        case Kind.POINTER:
            return "null" if value.data is None else marshal(Value(value.type.elem, value.data))
        case Kind.INTERFACE:
            return marshal(value.data)
    raise MarshalError(f"json: unsupported type: {value.type.name}")


_SPECIAL = re.compile(r'["\\<>&\x00-\x1f\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def json_string(text: str) -> str:
    """The text as a JSON string."""
    return f'"{_SPECIAL.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if char in _SHORT:
        return _SHORT[char]
    return "\\ufffd" if is_byte(char) or "\ud800" <= char <= "\udfff" else f"\\u{ord(char):04x}"


def _float(number: float) -> str:
    if not math.isfinite(number):
        raise MarshalError(f"json: unsupported value: {number}")
    return format_json(number)


def _slice(value: Value) -> str:
    if value.data is None:
        return "null"
    if value.type.elem is values.UINT8:
        return f'"{base64.b64encode(bytes(values.elements(value))).decode()}"'
    return f"[{','.join(marshal(values.typed(value.type.elem, item)) for item in values.elements(value))}]"


def _map(value: Value) -> str:
    if value.data is None:
        return "null"
    elem = value.type.elem
    return f"{{{','.join(f'{json_string(key)}:{marshal(values.typed(elem, item))}' for key, item in values.entries(value))}}}"


def _struct(value: Value) -> str:
    parts = []
    for field in value.type.fields:
        data = value.data[field.name]
        if field.name[0].isupper() and not (field.omitempty and _is_empty(Value(field.type, data))):
            parts.append(f"{json_string(field.json or field.name)}:{marshal(values.typed(field.type, data))}")
    return f"{{{','.join(parts)}}}"


def _is_empty(value: Value) -> bool:
    """What `omitempty` leaves out: zeros, nil and what has no length; never a struct or what a pointer points to."""
    if value.type.kind in (Kind.POINTER, Kind.INTERFACE):
        return value.data is None
    return value.type.kind is not Kind.STRUCT and not values.is_true(value)
