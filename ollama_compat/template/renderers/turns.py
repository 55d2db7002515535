"""A conversation as the built-in renderers see it: the types that Ollama's renderers get, with their defaults and their order.

Built from messages and tools in the API's JSON form. What is `any` in Go has its objects sorted and its numbers as floats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat.template.chat_types import described
from ollama_compat.template.messages import Think

_Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool that the model made; arguments in the order in which it wrote them."""

    name: str
    arguments: dict[str, Any]
    id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """A message."""

    role: str
    content: str = ""
    thinking: str = ""
    images: int = 0  # how many
    calls: tuple[Call, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call."""

    name: str
    description: str
    parameters: dict[str, Any]
    json: dict[str, Any]  # the whole of it, keys in the order of Ollama's types
    function: dict[str, Any]  # the part of `json` that describes the function

    @property
    def properties(self) -> dict[str, dict[str, Any]]:
        """The parameters by name, in the order of the request."""
        return self.parameters.get("properties") or {}


@dataclasses.dataclass(frozen=True, slots=True)
class Conversation:
    """What a renderer turns into a prompt."""

    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    think: Think = None

    @classmethod
    def of(cls, messages: Sequence[_Json], tools: Sequence[_Json] | None, think: Think) -> Conversation:
        """From the JSON form of the API."""
        return cls(tuple(_turn(message) for message in messages), tuple(_tool(tool) for tool in tools or ()), think)

    def thinks(self, default: bool = False) -> bool:
        """Whether reasoning is asked for; `default` where the request does not say."""
        return default if self.think is None else bool(self.think)

    def split_system(self, *roles: str) -> tuple[str, tuple[Turn, ...]]:
        """The content of the first message, if it is the system's (or of one of `roles`), and the other messages."""
        if self.turns and self.turns[0].role in (roles or ("system",)):
            return self.turns[0].content, self.turns[1:]
        return "", self.turns

    def without_system(self) -> tuple[Turn, ...]:
        """The messages that are not the system's."""
        return tuple(turn for turn in self.turns if turn.role != "system")


def last_index(turns: Sequence[Turn], role: str) -> int:
    """Where the last message of a role is; -1: there is none."""
    return max((at for at, turn in enumerate(turns) if turn.role == role), default=-1)


def any_value(data: Any) -> Any:
    """JSON as Go decodes it into `any` and would write it again."""
    if isinstance(data, Mapping):
        return {key: any_value(data[key]) for key in sorted(data)}
    if isinstance(data, list | tuple):
        return [any_value(item) for item in data]
    return float(data) if isinstance(data, int) and not isinstance(data, bool) else data


def _turn(message: _Json) -> Turn:
    return Turn(
        role=message.get("role", ""),
        content=message.get("content") or "",
        thinking=message.get("thinking") or "",
        images=len(message.get("images") or ()),
        calls=tuple(_call(call) for call in message.get("tool_calls") or ()),
        tool_name=message.get("tool_name") or "",
        tool_call_id=message.get("tool_call_id") or "",
    )


def _call(call: _Json) -> Call:
    function = call.get("function") or {}
    arguments = {key: any_value(value) for key, value in (function.get("arguments") or {}).items()}
    return Call(function.get("name") or "", arguments, call.get("id") or "")


def _tool(tool: _Json) -> Tool:
    given = tool.get("function") or {}
    parameters = _parameters(given.get("parameters") or {})
    description = given.get("description") or ""
    function = {"name": given.get("name") or ""} | ({"description": description} if description else {})
    function["parameters"] = parameters
    items = {"items": any_value(tool["items"])} if tool.get("items") is not None else {}
    return Tool(
        function["name"], description, parameters, {"type": tool.get("type") or "", **items, "function": function}, function
    )


def _parameters(given: _Json) -> dict[str, Any]:
    free = {key: any_value(given[key]) for key in ("$defs", "items") if given.get(key) is not None}
    required = {"required": list(given["required"])} if given.get("required") else {}
    return {"type": given.get("type") or "", **free, **required, "properties": described(given.get("properties"), _property)}


def _property(given: _Json) -> dict[str, Any]:
    kind = given.get("type")
    found = {
        "anyOf": [_property(choice or {}) for choice in given.get("anyOf") or ()],
        "type": kind[0] if isinstance(kind, list) and len(kind) == 1 else kind,
        "items": any_value(given.get("items")),
        "description": given.get("description"),
        "enum": any_value(given.get("enum")),
        "properties": described(given.get("properties"), _property),
        "required": given.get("required"),
    }
    kept = {"items", "properties"}  # left out only where they are null
    return {key: value for key, value in found.items() if value is not None and (value or key in kept)}
