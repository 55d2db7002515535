"""Whether a JSON schema has no value that ends: each would have to hold another of the same schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runtime.schema_values import target

_MAPS = ("properties", "patternProperties", "$defs", "definitions")  # their keys are no keywords
_VALUES = ("enum", "const")


def endless(root: dict[str, Any]) -> bool:
    """For a schema whose references lead somewhere, with the types that its keywords imply."""
    ending: set[str] = set()  # references to what has values that end
    unsure = list(dict.fromkeys(_references(root)))
    count = -1
    while len(ending) > count:
        count = len(ending)
        for ref in unsure:
            if _ends(target(ref, ["#"], root), ending):
                ending.add(ref)
        unsure = [ref for ref in reversed(unsure) if ref not in ending]  # what is used often stands before or after its users
    return not _ends(root, ending)


def _references(node: Any) -> Iterator[str]:
    if not isinstance(node, dict):
        return
    if isinstance(ref := node.get("$ref"), str):
        yield ref
    for key, part in node.items():
        if key not in _VALUES:
            parts = part.values() if key in _MAPS else part if isinstance(part, list) else [part]
            for each in parts:
                yield from _references(each)


def _ends(node: Any, ending: set[str]) -> bool:
    """Whether a schema has a value that ends, if it may hold those of the references `ending`."""
    if not isinstance(node, dict):
        return True
    if "$ref" in node and node["$ref"] not in ending:
        return False
    for key in ("anyOf", "oneOf"):
        if key in node and not any(_ends(part, ending) for part in node[key]):
            return False
    return all(_ends(part, ending) for part in _demanded(node))


def _demanded(node: dict[str, Any]) -> Iterator[Any]:
    """The schemas that a part of each value has to conform to."""
    yield from node.get("allOf", ())
    if node.get("type") == "object":
        properties, required = node.get("properties", {}), node.get("required")
        yield from (properties.get(name) for name in map(str, required if isinstance(required, list) else ()))
    least = int(node.get("minItems", 0))
    if node.get("type") == "array" and least:
        items = node.get("prefixItems", [])
        yield from [*items[:least], *([node.get("items")] if least > len(items) else [])]
