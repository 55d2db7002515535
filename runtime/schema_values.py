"""The values of a schema's keywords: whether they are of the type that they have to be, in the words of llama.cpp."""

from __future__ import annotations

import math
from typing import Any, NoReturn
from urllib.parse import quote, unquote

COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
MAPS = ("properties", "patternProperties", "$defs", "definitions")  # values: {name: schema}
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLE = ("items", "additionalProperties")
MAX_DEPTH = 100  # nested schemas

_MOST = 100_000  # schemas that are looked at for one
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
_NULLABLE = ("const", "default")  # where null is a value; elsewhere it says nothing, as by programs that write all fields


class SchemaError(Exception):
    """The schema is none, or none that can be enforced; the message names the place."""


class Document:
    """A whole schema, every part of it checked, without what says nothing. Reading it has an end: parts count each time."""

    def __init__(self, root: Any) -> None:
        self._left = _MOST
        self._raw = root
        self._targets: dict[str, Any] = {}
        self.root = self._tidy(root, ["#"])

    def spend(self) -> None:
        """Counts a schema that is looked at; references may make few of them many. Raises SchemaError."""
        self._left -= 1
        if self._left < 0:
            fail(["#"], "too large")

    def follow(self, ref: Any, path: list[str]) -> tuple[Any, str]:
        """What the reference `ref` at `path` leads to, and the same reference as an URI. Raises SchemaError."""
        found, uri = follow(ref, path, self._raw)
        if uri not in self._targets:
            self._targets[uri] = self._tidy(found, uri.split("/"))
        return self._targets[uri], uri

    def resolve(self, ref: str) -> Any:
        """What a reference means; None when it leads nowhere, or to no schema."""
        try:
            return self.follow(ref, ["#"])[0]
        except SchemaError:
            return None

    def _tidy(self, node: Any, path: list[str]) -> Any:
        if not isinstance(node, dict):
            return node
        if len(path) > MAX_DEPTH:
            fail(path[:4], "nested too deeply")
        self.spend()
        kept = {key: value for key, value in node.items() if value is not None or key in _NULLABLE}
        _check(kept, path)
        if "$ref" in kept:
            follow(kept["$ref"], path, self._raw)
        return {key: self._tidy_field(key, value, [*path, key]) for key, value in kept.items()}

    def _tidy_field(self, key: str, value: Any, path: list[str]) -> Any:
        if key in MAPS and isinstance(value, dict):
            return {name: self._tidy(part, [*path, name]) for name, part in value.items()}
        if key in (*LISTS, "items") and isinstance(value, list):
            return [self._tidy(part, [*path, str(number)]) for number, part in enumerate(value)]
        return self._tidy(value, path) if key in SINGLE or key == "propertyNames" else value


def fail(path: list[str], what: str) -> NoReturn:
    """Raises SchemaError for what is wrong at `path`."""
    raise SchemaError(f"JSON schema error at {'/'.join(path)}: {what}")


def _check(node: dict[str, Any], path: list[str]) -> None:
    """Raises SchemaError where a keyword of the schema `node` has a value that it cannot have."""
    for key in COUNTS:
        if key in node and not _is_count(node[key]):
            fail(path, f"{key} must be a non-negative integer")
    for key in _BOUNDS:
        value = node.get(key, 0)
        if not isinstance(value, (int, float)) or (isinstance(value, bool) and not key.startswith("exclusive")):  # as in draft 4
            fail(path, f"{key} must be a number")
    if node.get("multipleOf", 1) <= 0:
        fail(path, "multipleOf must be greater than 0")
    if not isinstance(node.get("pattern", ""), str):
        fail(path, "pattern must be a string")
    if not isinstance(node.get("additionalProperties", True), (bool, dict)):
        fail(path, "additionalProperties must be a boolean or a schema")
    if node.get("type") == []:
        fail(path, "type must not be empty")
    if not _is_required(node.get("required", [])):
        fail(path, "required must be an array of strings")
    _check_parts(node, path)


def _check_parts(node: dict[str, Any], path: list[str]) -> None:
    for key in MAPS:
        if not isinstance(node.get(key, {}), dict):
            fail(path, f"{key} must be an object")
    for key in LISTS:
        if not isinstance(node.get(key, []), list):
            fail([*path, key], "must be an array of schemas")
        if key in _ALTERNATIVES and node.get(key) == []:
            fail([*path, key], "must not be empty")


def _is_count(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return value >= 0 and math.isfinite(value) and value == int(value)


def _is_required(value: Any) -> bool:
    """Names, or whether a property itself is required, as in draft 3."""
    return isinstance(value, bool) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def target(ref: Any, path: list[str], root: Any) -> Any:
    """What the reference `ref` at `path` leads to. Raises SchemaError where that is nothing."""
    return follow(ref, path, root)[0]


def follow(ref: Any, path: list[str], root: Any) -> tuple[Any, str]:
    """What the reference `ref` at `path` leads to, and the same reference as an URI. Raises SchemaError where that is nothing.

    A name may be written as it is, with the escapes of URIs, or of JSON pointers.
    """
    if not isinstance(ref, str):
        fail(path, "$ref must be a string")
    if ref != "#" and not ref.startswith("#/"):
        fail(path, f"unsupported $ref {ref}, only references into the same document are supported")
    found, names = root, ["#"]
    for step in ref.split("/")[1:]:
        name = _name(step) if isinstance(found, dict) and _name(step) in found else _name(unquote(step))
        if isinstance(found, list):
            if not name.isdecimal() or int(name) >= len(found):
                fail(path, f"cannot resolve $ref {ref}, {step} is out of range")
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            fail(path, f"cannot resolve $ref {ref}, {step} not found")
        names.append(quote(name.replace("~", "~0").replace("/", "~1"), safe="~$"))
    return found, "/".join(names)


def _name(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")
