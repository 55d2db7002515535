"""JSON values as Go prints them: `%v`, `%#v`, and the JSON of its encoder. Ollama's Modelfiles, tables and blobs show them."""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from typing import Any

import orjson

from ollama_compat import gojson
from ollama_compat.duration import quote


def plain(value: Any) -> str:
    """`%v`"""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{plain(item)}" for key, item in by_key(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(plain, value)) + "]"
    return str(value)


def syntax(value: Any) -> str:
    """`%#v`"""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, Mapping):
        return "map[string]interface {}{" + ", ".join(f"{quote(key)}:{_element(item)}" for key, item in by_key(value)) + "}"
    if isinstance(value, list):
        return "[]interface {}{" + ", ".join(map(_element, value)) + "}"
    return plain(value)


def _element(value: Any) -> str:
    return "interface {}(nil)" if value is None else syntax(value)


def by_key(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The items in the order in which Go prints and encodes a map."""
    return sorted(value.items(), key=lambda item: item[0].encode("utf-8", "surrogatepass"))


def read_json(data: bytes) -> Any:
    """The JSON value in a blob or a manifest, numbers as int or float; ValueError when there is none."""
    try:
        return gojson.plain(gojson.loads(data))
    except gojson.NoBody:
        raise ValueError("it is empty") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def json_line(value: Any, *, is_map: bool = True) -> bytes:
    """The value and a line end, as Go's JSON encoder writes it: numbers are float64, maps sorted by key.

    Without `is_map` objects keep their order, as the fields of Go's structs do.
    """
    return gojson.dumps(_encodable(value, is_map)) + b"\n"


def _encodable(value: Any, is_map: bool) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return orjson.Fragment(_json_number(value).encode())
    if isinstance(value, Mapping):
        return {key: _encodable(item, is_map) for key, item in (by_key(value) if is_map else value.items())}
    if isinstance(value, list):
        return [_encodable(item, is_map) for item in value]
    return value


def _shortest(value: int | float) -> tuple[decimal.Decimal, int]:
    """The shortest decimal that is this float64 and the power of ten of its first digit."""
    number = decimal.Decimal(repr(float(value))).normalize()
    return number, number.adjusted()


def _number(value: int | float) -> str:
    number, exponent = _shortest(value)
    # Go decides by a precision of 6 where it prints as many digits as are needed (strconv.FormatFloat)
    if number and (exponent < -4 or exponent >= 6):
        return _scientific(number, exponent)
    return f"{number:f}"


def _json_number(value: int | float) -> str:
    number, exponent = _shortest(value)
    if number and (exponent < -6 or exponent >= 21):
        return _scientific(number, exponent).replace("e-0", "e-")
    return f"{number:f}"


def _scientific(number: decimal.Decimal, exponent: int) -> str:
    mantissa = number.scaleb(-exponent).normalize()
    return f"{mantissa:f}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
