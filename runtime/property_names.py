"""`propertyNames` of JSON schemas, said by other keywords: a grammar has no place for a schema of names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

_TELLING = ("type", "title", "description", "default", "examples", "$comment", "deprecated")  # what limits no string
_LENGTHS = {"minLength", "maxLength"}
_DEEPEST = 12  # references to references


def told_otherwise(node: Schema, resolve: Callable[[str], Any]) -> Schema:
    """The schema `node` without its `propertyNames`, and of the same meaning; `node` where it cannot be said otherwise.

    Libraries write it for every map: `{"type": "string"}` for any names, the values of an enum, or a pattern.
    """
    names = _resolved(node.get("propertyNames"), resolve)
    if not isinstance(names, dict) or not isinstance(node.get("properties", {}), dict):
        return node
    limits = {key: value for key, value in names.items() if key not in _TELLING}
    kinds = names.get("type", "string")
    if kinds != "string" and not (isinstance(kinds, list) and "string" in kinds):
        return node
    rest = {key: value for key, value in node.items() if key != "propertyNames"}
    if not limits:
        return rest
    more = node.get("additionalProperties", "properties" not in node)
    listed = _listed(limits)
    if listed is not None and "patternProperties" not in node:
        given = node.get("properties", {})
        properties = {name: given.get(name, more) for name in [*given, *listed] if name in listed}
        found = {name: value for name, value in properties.items() if value is not False}
        return rest | {"properties": found, "additionalProperties": False}
    pattern = _pattern(limits)
    if pattern is not None and "properties" not in node and "patternProperties" not in node:
        return rest | {"patternProperties": {pattern: more}, "additionalProperties": False}
    return node


def _resolved(names: Any, resolve: Callable[[str], Any]) -> Any:
    for _ in range(_DEEPEST):
        if not isinstance(names, dict) or list(names) != ["$ref"] or not isinstance(names["$ref"], str):
            return names
        names = resolve(names["$ref"])
    return None


def _listed(limits: Schema) -> list[str] | None:
    """The only names that there may be, if they are listed."""
    values = limits.get("enum") if list(limits) == ["enum"] else [limits["const"]] if list(limits) == ["const"] else None
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else None


def _pattern(limits: Schema) -> str | None:
    """The pattern that names match, if it is one or their length alone that is limited."""
    if list(limits) == ["pattern"] and isinstance(limits["pattern"], str):
        return limits["pattern"]
    least, most = limits.get("minLength", 0), limits.get("maxLength", "")
    if not set(limits) <= _LENGTHS or not isinstance(least, int) or not isinstance(most, (int, str)):
        return None
    return rf"^[\s\S]{{{least},{most}}}$"
