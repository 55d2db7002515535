"""The values of a schema's keywords: whether they are of the type that they have to be, in the words of llama.cpp."""

from __future__ import annotations

from typing import Any, NoReturn
from urllib.parse import quote, unquote

COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_ALTERNATIVES = ("anyOf", "oneOf", "allOf")


class SchemaError(Exception):
    """The schema is none, or none that can be enforced; the message names the place."""


def fail(path: list[str], what: str) -> NoReturn:
    """Raises SchemaError for what is wrong at `path`."""
    raise SchemaError(f"JSON schema error at {'/'.join(path)}: {what}")


def check(node: dict[str, Any], path: list[str], root: Any) -> None:
    """Raises SchemaError where a keyword of the schema `node` has a value that it cannot have. `root`: the whole document."""
    for key in COUNTS:
        if key in node and not _is_count(node[key]):
            fail(path, f"{key} must be a non-negative integer")
    for key in _BOUNDS:
        value = node.get(key, 0)
        if not isinstance(value, (int, float)) or (isinstance(value, bool) and not key.startswith("exclusive")):  # as in draft 4
            fail(path, f"{key} must be a number")
    if not isinstance(node.get("pattern", ""), str):
        fail(path, "pattern must be a string")
    if not isinstance(node.get("additionalProperties", True), (bool, dict)):
        fail(path, "additionalProperties must be a boolean or a schema")
    if node.get("type") == []:
        fail(path, "type must not be empty")
    for key in _ALTERNATIVES:
        if node.get(key) == []:
            fail([*path, key], "must not be empty")
    if "$ref" in node:
        target(node["$ref"], path, root)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 and value == int(value)


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
