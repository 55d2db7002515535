"""Values of arguments that a model wrote as bare text: which type they get by the tool's schema."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def types_of(tools: Sequence[Mapping[str, Any]], name: str, parameter: str) -> list[str]:
    """The types that a tool's parameter may have; none when it is not described. `tools` in the API's JSON form."""
    described = properties_of(tools, name).get(parameter) or {}
    if choices := described.get("anyOf"):
        return [kind for choice in choices for kind in _listed((choice or {}).get("type"))]
    return _listed(described.get("type"))


def properties_of(tools: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """What is said of the parameters of the first tool of that name."""
    for tool in tools:
        function = tool.get("function") or {}
        if function.get("name") == name:
            return (function.get("parameters") or {}).get("properties") or {}
    return {}


def _listed(kind: Any) -> list[str]:
    return [kind] if isinstance(kind, str) else list(kind or ())


def trimmed(text: str, types: Sequence[str]) -> Any:
    """The value of a text that may stand between line breaks."""
    return typed(text.removeprefix("\n").removesuffix("\n"), types)


def typed(text: str, types: Sequence[str]) -> Any:
    """The value of a text: the first type in the order null, boolean, integer, number, array, object that it fits, else a text.

    Null is understood whatever the types are; what is to be a boolean and nothing else is false when it is not `true`.
    """
    word = text.lower()
    if word == "null":
        return None
    if "boolean" in types and (word in ("true", "false") or len(types) == 1):
        return word == "true"
    if "integer" in types and _INTEGER.fullmatch(text) and -(1 << 63) <= int(text) < 1 << 63:
        return int(text)
    if "number" in types and (number := _number(text)) is not None:
        return number
    for kind, python_type in (("array", list), ("object", dict)):
        if kind in types and isinstance(value := _json(text), python_type):
            return value
    return text


def _number(text: str) -> int | float | None:
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1 << 63 else value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
