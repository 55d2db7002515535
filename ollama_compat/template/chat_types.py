"""Messages and tools as Go templates see them: the struct types that Ollama hands to a template, and how they print.

From Ollama's `template/template.go` and `api/types.go`. Input is the JSON form of the API; what is left out is zero.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ollama_compat.template.gotemplate import values
from ollama_compat.template.gotemplate.marshal import json_string, marshal
from ollama_compat.template.gotemplate.values import ANY, INT, STRING, STRINGS, Field, Kind, Type, Value

_Json = Mapping[str, Any]


def tools_value(tools: Sequence[_Json] | None) -> Value:
    """`.Tools`; None (no tools in the request) is a nil slice, which prints as `null`."""
    return Value(TOOLS, None if tools is None else [_tool(tool) for tool in tools])


def messages_value(messages: Sequence[_Json]) -> Value:
    """`.Messages`."""
    return Value(MESSAGES, [_message(message) for message in messages])


# ---------------------------------------------------------------- types


def _json_text(value: Value) -> str:
    """What prints as JSON prints a nil map as an object all the same."""
    return "{}" if value.data is None and value.type.kind is Kind.MAP else marshal(value)


def _type_names(value: Value) -> str:
    names = values.elements(value)
    return f"[{' '.join(names)}]" if len(names) > 1 else "".join(names)


def _marshal_type_names(value: Value) -> str:
    names = values.elements(value)
    return json_string(names[0]) if len(names) == 1 else marshal(Value(STRINGS, names or None))


def _marshal_properties(value: Value) -> str:
    """In the order of the request."""
    return f"{{{','.join(f'{json_string(key)}:{marshal(Value(PROPERTY, data))}' for key, data in value.data.items())}}}"


_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def _typescript(value: Value) -> str:
    data = value.data
    if data["AnyOf"]:
        return " | ".join(_typescript(Value(PROPERTY, choice)) for choice in data["AnyOf"])
    return " | ".join(_TYPESCRIPT.get(name, "any") for name in data["Type"] or ("",))


_AS_JSON = {"String": _json_text}

PROPERTY_TYPE = Type(Kind.SLICE, "api.PropertyType", STRING, methods={"String": _type_names}, marshal=_marshal_type_names)
PROPERTIES_IN_ORDER = Type(Kind.STRUCT, "api.ToolPropertiesMap", marshal=_marshal_properties)
PROPERTY = Type(Kind.STRUCT, "api.ToolProperty", methods={"ToTypeScriptType": _typescript})
PROPERTY.fields = (
    Field("AnyOf", values.slice_of(PROPERTY), "anyOf", omitempty=True),
    Field("Type", PROPERTY_TYPE, "type", omitempty=True),
    Field("Items", ANY, "items", omitempty=True),
    Field("Description", STRING, "description", omitempty=True),
    Field("Enum", values.SLICE, "enum", omitempty=True),
    Field("Properties", values.pointer_to(PROPERTIES_IN_ORDER), "properties", omitempty=True),
    Field("Required", STRINGS, "required", omitempty=True),
)
PROPERTIES = Type(Kind.MAP, "template.templateProperties", PROPERTY, methods=_AS_JSON)
PARAMETERS = Type(
    Kind.STRUCT,
    "template.templateToolFunctionParameters",
    fields=(
        Field("Type", STRING, "type"),
        Field("Defs", ANY, "$defs", omitempty=True),
        Field("Items", ANY, "items", omitempty=True),
        Field("Required", STRINGS, "required", omitempty=True),
        Field("Properties", PROPERTIES, "properties"),
    ),
)
FUNCTION = Type(
    Kind.STRUCT,
    "template.templateToolFunction",
    fields=(
        Field("Name", STRING, "name"),
        Field("Description", STRING, "description"),
        Field("Parameters", PARAMETERS, "parameters"),
    ),
)
TOOL = Type(
    Kind.STRUCT,
    "template.templateTool",
    fields=(Field("Type", STRING, "type"), Field("Items", ANY, "items", omitempty=True), Field("Function", FUNCTION, "function")),
    methods=_AS_JSON,
)
TOOLS = Type(Kind.SLICE, "template.templateTools", TOOL, methods=_AS_JSON)

ARGUMENTS = Type(Kind.MAP, "template.templateArgs", ANY, methods=_AS_JSON)
CALL_FUNCTION = Type(
    Kind.STRUCT,
    "template.templateToolCallFunction",
    fields=(Field("Index", INT), Field("Name", STRING), Field("Arguments", ARGUMENTS)),
)
CALL = Type(Kind.STRUCT, "template.templateToolCall", fields=(Field("ID", STRING), Field("Function", CALL_FUNCTION)))
IMAGE = Type(Kind.SLICE, "api.ImageData", values.UINT8)
MESSAGE = Type(
    Kind.STRUCT,
    "template.templateMessage",
    fields=(
        Field("Role", STRING),
        Field("Content", STRING),
        Field("Thinking", STRING),
        Field("Images", values.slice_of(IMAGE)),
        Field("ToolCalls", values.slice_of(CALL)),
        Field("ToolName", STRING),
        Field("ToolCallID", STRING),
    ),
)
MESSAGES = values.slice_of(values.pointer_to(MESSAGE))

# ---------------------------------------------------------------- data


class _Image(Sequence[int]):
    """The bytes of an image, decoded only when a template looks at them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._bytes: bytes | None = None

    def _data(self) -> bytes:
        if self._bytes is None:
            self._bytes = base64.b64decode(self._text)
        return self._bytes

    def __len__(self) -> int:
        return len(self._data())

    def __getitem__(self, index: Any) -> Any:
        return self._data()[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._data())


def _any(data: Any) -> Any:
    """JSON as Go decodes it into `any`: every number is a float64."""
    if isinstance(data, Mapping):
        return {key: _any(item) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [_any(item) for item in data]
    return float(data) if isinstance(data, int) and not isinstance(data, bool) else data


def _message(message: _Json) -> dict[str, Any]:
    return {
        "Role": message.get("role", ""),
        "Content": message.get("content", ""),
        "Thinking": message.get("thinking", ""),
        "Images": [_Image(image) for image in message.get("images") or ()] or None,
        "ToolCalls": [_call(call) for call in message.get("tool_calls") or ()] or None,
        "ToolName": message.get("tool_name", ""),
        "ToolCallID": message.get("tool_call_id", ""),
    }


def _call(call: _Json) -> dict[str, Any]:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    return {
        "ID": call.get("id", ""),
        "Function": {
            "Index": function.get("index", 0),
            "Name": function.get("name", ""),
            "Arguments": None if arguments is None else _any(arguments),
        },
    }


def _tool(tool: _Json) -> dict[str, Any]:
    function = tool.get("function") or {}
    return {
        "Type": tool.get("type", ""),
        "Items": _any(tool.get("items")),
        "Function": {
            "Name": function.get("name", ""),
            "Description": function.get("description", ""),
            "Parameters": _parameters(function.get("parameters") or {}),
        },
    }


def _parameters(parameters: _Json) -> dict[str, Any]:
    return {
        "Type": parameters.get("type", ""),
        "Defs": _any(parameters.get("$defs")),
        "Items": _any(parameters.get("items")),
        "Required": parameters.get("required"),
        "Properties": described(parameters.get("properties"), _property),
    }


def described(properties: _Json | None, describe: Callable[[_Json], dict[str, Any]]) -> dict[str, Any] | None:
    """Each property as `describe` has it; one that is null is like an empty one."""
    return None if properties is None else {name: describe(data or {}) for name, data in properties.items()}


def _property(data: _Json) -> dict[str, Any]:
    kind = data.get("type")
    return {
        "AnyOf": [_property(choice) for choice in data.get("anyOf") or ()] or None,
        "Type": [kind] if isinstance(kind, str) else kind,
        "Items": _any(data.get("items")),
        "Description": data.get("description", ""),
        "Enum": _any(data.get("enum")),
        "Properties": described(data.get("properties"), _property),
        "Required": data.get("required"),
    }
