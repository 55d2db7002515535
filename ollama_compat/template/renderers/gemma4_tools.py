"""Tools as Gemma 4 is shown them: JSON schemas in a notation of its own.

A parameter itself is a typed value in Ollama, and what lies below it in `items` is free JSON; they differ in small things.
"""

from __future__ import annotations

from typing import Any

from ollama_compat.template.renderers.gemma_values import described, names, value
from ollama_compat.template.renderers.text import verb_v
from ollama_compat.template.renderers.turns import Tool

QUOTE = '<|"|>'
_STANDARD = ("description", "type", "properties", "required", "nullable")
_BARE = {"type"}  # the only key of a choice that can be told as a type


def declaration(tool: Tool) -> str:
    """The declaration of a tool."""
    properties = _properties(_typed_all(tool.properties)) if tool.properties else None
    return f"<|tool>declaration:{tool.name}{described(tool, properties, QUOTE)}<tool|>"


# ---------------------------------------------------------------- parameters


def _typed_all(properties: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: _typed(data) for name, data in properties.items()}


def _typed(data: dict[str, Any]) -> dict[str, Any]:
    """A parameter as free JSON. Several types become one text, as in the model's own template."""
    kept: dict[str, Any] = {key: data[key] for key in ("description", "enum", "items", "required") if key in data}
    kinds = _kinds(data)
    if kinds:
        shown = ", ".join(f"'{kind.upper()}'" for kind in kinds)
        kept["type"] = kinds[0] if len(kinds) == 1 else f"[{shown}]"
    if data.get("properties") is not None:
        kept["properties"] = _typed_all(data["properties"])
    return kept


def _kinds(data: dict[str, Any]) -> list[str]:
    """The types of a parameter: its own, or those of choices that say nothing but a type."""
    kind = data.get("type")
    if kind:
        return [kind] if isinstance(kind, str) else list(kind)
    choices = data.get("anyOf") or []
    if not all(set(choice) == _BARE for choice in choices):
        return []
    found = (each for choice in choices for each in (choice["type"] if isinstance(choice["type"], list) else [choice["type"]]))
    return list(dict.fromkeys(found))


# ---------------------------------------------------------------- free JSON


def _properties(properties: dict[str, Any]) -> str:
    shown = (
        f"{name}:{{{','.join(_property(properties[name]))}}}"
        for name in sorted(properties)
        if name not in _STANDARD and isinstance(properties[name], dict)
    )
    return ",".join(shown)


def _property(data: dict[str, Any]) -> list[str]:
    """The parts of a property's description, in the order of the template."""
    kinds = _upper(data.get("type"))
    kind = kinds[0] if kinds else ""
    parts = []
    if isinstance(data.get("description"), str) and data["description"]:
        parts.append(f"description:{QUOTE}{data['description']}{QUOTE}")
    if kind == "STRING" and isinstance(data.get("enum"), list) and data["enum"]:
        parts.append(f"enum:[{','.join(QUOTE + verb_v(each) + QUOTE for each in data['enum'])}]")
    if kind == "ARRAY" and isinstance(data.get("items"), dict) and data["items"]:
        parts.append(f"items:{{{_items(data['items'])}}}")
    if data.get("nullable") is True:
        parts.append("nullable:true")
    if kind == "OBJECT":
        inner = data["properties"] if isinstance(data.get("properties"), dict) else data
        parts.append(f"properties:{{{_properties(inner)}}}")
        if required := _texts(data.get("required")):
            parts.append(f"required:{names(required, QUOTE)}")
    return parts + ([f"type:{_type(kinds)}"] if kinds else [])


def _items(items: dict[str, Any]) -> str:
    return ",".join(_item(key, items[key]) for key in sorted(items) if items[key] is not None)


def _item(key: str, data: Any) -> str:
    """What a key of `items` becomes."""
    if key == "properties":
        return f"properties:{{{_properties(data) if isinstance(data, dict) else ''}}}"
    if key == "required":
        return f"required:{names(_texts(data), QUOTE)}"
    if key == "type":
        kinds = _upper(data)
        return f"type:{_type(kinds)}" if kinds else ""
    return f"{key}:{value(data, QUOTE, key_mark=QUOTE)}"


def _type(kinds: list[str]) -> str:
    return QUOTE + kinds[0] + QUOTE if len(kinds) == 1 else names(kinds, QUOTE)


def _upper(kind: Any) -> list[str]:
    return [kind.upper()] if isinstance(kind, str) else [each.upper() for each in _texts(kind)]


def _texts(data: Any) -> list[str]:
    return [each for each in data if isinstance(each, str)] if isinstance(data, list) else []
