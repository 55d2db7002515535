"""`required` of JSON schemas: every name in it is one of a property, as a grammar wants it."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_ELSEWHERE = ("patternProperties", "anyOf", "oneOf", "allOf", "$ref")  # may describe a property too


def described(node: Schema) -> Schema:
    """The schema `node`, which has been checked, with a property for each name that it requires.

    One that is only required may have any value that other properties may have. In draft 3 a property says itself that
    it is required.
    """
    properties = node.get("properties", {})
    if not isinstance(properties, dict) or not ("properties" in node or node.get("type") == "object"):
        return node
    names = [*_required(node), *(name for name, part in properties.items() if _requires_itself(part))]
    if not names:
        return node
    more = node.get("additionalProperties", True)
    closed = more is False or any(key in node for key in _ELSEWHERE)
    missing = {name: more for name in names if name not in properties and not closed}
    open_still = {"additionalProperties": more} if missing and "properties" not in node else {}
    return node | open_still | {"properties": properties | missing, "required": names}


def _required(node: Schema) -> list[str]:
    names = node.get("required")
    return names if isinstance(names, list) else []


def _requires_itself(part: Any) -> bool:
    return isinstance(part, dict) and part.get("required") is True
