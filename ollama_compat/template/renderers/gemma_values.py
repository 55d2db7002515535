"""Values in the form of the Gemma family: bare keys in sorted order, strings between marks of their own."""

from __future__ import annotations

from typing import Any

from ollama_compat.template.renderers.text import verb_v
from ollama_compat.template.renderers.turns import Tool


def value(data: Any, mark: str, *, key_mark: str = "", null: str = "null") -> str:
    """The value; `mark` stands around strings, `key_mark` around keys inside of it."""
    if data is None:
        return null
    if isinstance(data, str):
        return mark + data + mark
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, dict):
        return mapping(data, mark, key_mark=key_mark, null=null)
    if isinstance(data, list):
        return f"[{','.join(value(item, mark, key_mark=key_mark, null=null) for item in data)}]"
    return str(int(data)) if data.is_integer() and abs(data) < 1 << 63 else verb_v(data)


def mapping(data: dict[str, Any], mark: str, *, key_mark: str = "", null: str = "null") -> str:
    """An object."""
    pairs = (f"{key_mark}{key}{key_mark}:{value(data[key], mark, key_mark=key_mark, null=null)}" for key in sorted(data))
    return f"{{{','.join(pairs)}}}"


def names(found: list[str], mark: str) -> str:
    """A list of strings."""
    return f"[{','.join(mark + name + mark for name in found)}]"


def described(tool: Tool, properties: str | None, mark: str) -> str:
    """What a tool does and takes; `properties`: its parameters' own, in the family member's form, None for none."""
    kind, required = tool.parameters["type"], tool.parameters.get("required")
    parts = []
    if properties is not None:
        parts.append(f"properties:{{{properties}}}")
    if required:
        parts.append(f"required:{names(required, mark)}")
    if kind:
        parts.append(f"type:{mark}{kind.upper()}{mark}")
    known = tool.parameters["properties"] is not None or kind
    parameters = f",parameters:{{{','.join(parts)}}}" if known else ""
    return f"{{description:{mark}{tool.description}{mark}{parameters}}}"
