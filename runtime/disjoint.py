"""Whether two JSON schemas have no value in common: `oneOf` then means `anyOf`, which a grammar can hold an answer to.

Only what is certain counts: schemas of which it cannot be told are taken to overlap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from runtime.schema_values import Document

_DEEPEST = 12  # schemas within schemas that are looked into
_KINDS: Mapping[type, str] = {bool: "boolean", str: "string", list: "array", dict: "object", type(None): "null"}
_ALL = frozenset((*_KINDS.values(), "integer", "fraction"))
_COMBINED = ("anyOf", "oneOf")


def disjoint(a: Any, b: Any, document: Document, closed: bool, depth: int = 0) -> bool:
    """Whether no answer conforms to both schemas. `closed`: answers to them have no properties but those they list.

    Raises SchemaError where that would take too long to find out.
    """
    document.spend()
    a, b = _resolved(a, document), _resolved(b, document)
    if a is False or b is False:
        return True
    if not isinstance(a, dict) or not isinstance(b, dict) or depth > _DEEPEST:
        return False
    if _alone(a, b, document, closed, depth):
        return True
    return _by_parts(a, b, document, closed, depth) or _by_parts(b, a, document, closed, depth)


def _resolved(schema: Any, document: Document) -> Any:
    for _ in range(_DEEPEST):
        if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
            return schema
        target = document.resolve(schema["$ref"])
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {"allOf": [target, siblings]} if len(siblings) > 0 and isinstance(target, dict) else target
    return None


def _by_parts(a: Mapping[str, Any], b: Mapping[str, Any], document: Document, closed: bool, depth: int) -> bool:
    """Whether every alternative of `a`, or one of the parts that have to hold together, excludes `b`."""
    for key in _COMBINED:
        if isinstance(a.get(key), list) and all(disjoint(part, b, document, closed, depth + 1) for part in a[key]):
            return True
    parts = a.get("allOf")
    return isinstance(parts, list) and any(disjoint(part, b, document, closed, depth + 1) for part in parts)


def _alone(a: Mapping[str, Any], b: Mapping[str, Any], document: Document, closed: bool, depth: int) -> bool:
    """By the keywords that stand in the schemas themselves."""
    values = _values(a), _values(b)
    if values[0] is not None and values[1] is not None and not values[0] & values[1]:
        return True
    common = _kinds(a) & _kinds(b)
    if not common:
        return True
    if common <= {"integer", "fraction"}:
        return _apart(_range(a), _range(b))
    return common == {"object"} and _objects(a, b, document, closed, depth)


def _values(schema: Mapping[str, Any]) -> frozenset[str] | None:
    """The only values that there are, in a form in which equal ones are equal."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return frozenset(map(_canonical, values)) if isinstance(values, list) else None


def _canonical(value: Any) -> str:
    def plain(item: Any) -> Any:
        if isinstance(item, float) and item.is_integer():
            return int(item)
        if isinstance(item, list):
            return [plain(part) for part in item]
        return {key: plain(part) for key, part in item.items()} if isinstance(item, dict) else item

    return json.dumps(plain(value), sort_keys=True)


def _kinds(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types of value that there may be; numbers are integers or fractions."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        return frozenset(_kind(value) for value in values)
    names = schema.get("type")
    if names is None:
        return _ALL
    names = names if isinstance(names, list) else [names]
    return frozenset(kind for name in names for kind in (("integer", "fraction") if name == "number" else (str(name),)))


def _kind(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "integer" if float(value).is_integer() else "fraction"
    return _KINDS[type(value)]


def _range(schema: Mapping[str, Any]) -> tuple[float, float]:
    low = max(_bound(schema, "minimum", -math.inf), _bound(schema, "exclusiveMinimum", -math.inf))
    return low, min(_bound(schema, "maximum", math.inf), _bound(schema, "exclusiveMaximum", math.inf))


def _bound(schema: Mapping[str, Any], key: str, default: float) -> float:
    value = schema.get(key)
    return default if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)


def _apart(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[1] < b[0] or b[1] < a[0]


def _objects(a: Mapping[str, Any], b: Mapping[str, Any], document: Document, closed: bool, depth: int) -> bool:
    """By their properties: one that has to be there and cannot be the same in both, or cannot be there in the other."""
    required = _required(a) | _required(b)
    ours, theirs = _properties(a), _properties(b)
    if any(disjoint(ours[name], theirs[name], document, True, depth + 1) for name in required & ours.keys() & theirs.keys()):
        return True
    if _lacks(a, b) or _lacks(b, a):
        return True
    return closed and _closes(a) and _closes(b) and bool(_required(a) - theirs.keys()) and bool(_required(b) - ours.keys())


def _lacks(closed: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether `closed` cannot have something that the other one must have."""
    is_closed = closed.get("additionalProperties") is False and "patternProperties" not in closed
    return is_closed and bool(_required(other) - _properties(closed).keys())


def _closes(schema: Mapping[str, Any]) -> bool:
    """Whether answers have no other properties than the listed ones."""
    return bool(_properties(schema)) and not schema.get("additionalProperties") and "patternProperties" not in schema


def _required(schema: Mapping[str, Any]) -> set[str]:
    names = schema.get("required")
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}
