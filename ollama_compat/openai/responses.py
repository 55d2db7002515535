"""POST /v1/responses: the request, and what of it the answer repeats."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from ollama_compat import gojson, gotypes, tool_choice, turns
from ollama_compat.errors import Refused
from ollama_compat.gotypes import Member, Place
from ollama_compat.openai import common
from ollama_compat.openai.chat import Any_, Float, Whole
from ollama_compat.openai.response_items import Item, decode_input, turns_of
from ollama_compat.schema import ChatRequest, Flag, Text
from ollama_compat.turns import turn

Names = Mapping[str, tuple[str, str]]
"""Name of a function as the model knows it -> its namespace and its name there."""


def _input(value: Any, at: Place) -> str | list[Item]:
    return decode_input(value)


def _sorted(value: Any) -> Any:
    """The value with its objects in the order in which Go writes maps."""
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in sorted(value.items())}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _schema(value: Any, at: Place) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        at.refuse(value, "map[string]interface {}")
        return None
    plain: dict[str, Any] = _sorted(gojson.plain(value))
    return plain


def _tool(value: Any, at: Place) -> dict[str, Any] | None:
    decoded: dict[str, Any] | None = _TOOL(value, at)
    return decoded


def _echo(value: Any, at: Place) -> Any:
    return gojson.plain(value)


_TOOL = gotypes.struct(
    "ResponsesTool",
    (
        Member("type", gotypes.string, omit=False),
        Member("name", gotypes.string, omit=False),
        Member("description", gotypes.string, None, omit=False),
        Member("strict", gotypes.boolean, None, omit=False),
        Member("parameters", _schema, None, omit=False),
        Member("tools", gotypes.array(_tool, "[]openai.ResponsesTool", null={}), []),
    ),
    "openai",
)
_REASONING = gotypes.struct(
    "ResponsesReasoning", [Member(name, gotypes.string) for name in ("effort", "generate_summary", "summary")], "openai"
)
_FORMAT = gotypes.struct(
    "ResponsesTextFormat",
    (
        Member("type", gotypes.string, omit=False),
        Member("name", gotypes.string),
        Member("schema", _echo, None),
        Member("strict", gotypes.boolean, None),
    ),
    "openai",
)
_TEXT = gotypes.struct("ResponsesText", (Member("format", _FORMAT, None),), "openai")


@dataclasses.dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """The request. The last two fields are not looked at by Ollama."""

    model: Text = ""
    background: Flag = False
    include: Annotated[list[str] | None, gotypes.array(gotypes.string, "[]string", null="")] = None
    input: Annotated[Any, _input] = ""
    instructions: Text = ""
    max_output_tokens: Whole = None
    reasoning: Annotated[dict[str, str], _REASONING] = dataclasses.field(default_factory=dict)
    temperature: Float = None
    text: Annotated[dict[str, Any] | None, _TEXT] = None
    top_p: Float = None
    truncation: Annotated[str | None, gotypes.string] = None
    tools: Annotated[list[dict[str, Any]] | None, gotypes.array(_tool, "[]openai.ResponsesTool", null={})] = None
    stream: Flag = False
    tool_choice: Any_ = None
    parallel_tool_calls: Any_ = None


def to_native(request: ResponsesRequest) -> ChatRequest:
    """The request of /api/chat that means the same. Raises Refused."""
    messages = [turn("system", request.instructions)] if request.instructions else []
    messages += [turn("user", request.input)] if isinstance(request.input, str) and request.input else []
    messages += turns_of(request.input) if isinstance(request.input, list) else []
    tools = [tool for tool, _, _ in _flat(request.tools or ())]
    given = {"temperature": request.temperature, "top_p": request.top_p, "num_predict": request.max_output_tokens}
    form = (request.text or {}).get("format") or {}
    return ChatRequest(
        model=request.model,
        messages=messages,
        stream=request.stream,
        format=form.get("schema") if form.get("type") == "json_schema" else None,
        tools=tools or None,
        tool_choice=tool_choice.read(request.tool_choice, several=request.parallel_tool_calls is not False),
        options={"temperature": 1.0} | common.sampling(given),
        think=common.think(request.reasoning.get("effort", "")),
    )


def names(request: ResponsesRequest) -> Names:
    """The functions that stand in a namespace."""
    flat = _flat(request.tools or ())
    return {tool["function"]["name"]: (space, name) for tool, space, name in flat if space}


def _flat(tools: Iterable[Mapping[str, Any]], space: str = "") -> Iterable[tuple[dict[str, Any], str, str]]:
    """Native tools, each with its namespace and its name there.

    Those of other types without a name run on the provider's machines, and are left out: a model must not call what nobody runs.
    """
    for tool in tools:
        if tool["type"] == "namespace":
            yield from _flat(tool.get("tools", ()), qualified(space, tool["name"]))
        elif tool["name"] or tool["type"] in ("", "function"):
            name, given = qualified(space, tool["name"]), _raw(tool["parameters"])
            yield _native(tool, name, given), space, tool["name"].removeprefix(f"{space}.")


def _native(tool: Mapping[str, Any], name: str, given: Any) -> dict[str, Any]:
    try:
        return turns.tool(tool["type"], name, tool["description"] or "", given, tool["strict"] is True)
    except ValueError as error:
        raise Refused(f"failed to unmarshal tool parameters: {error}") from None


def _raw(value: Any) -> Any:
    """Plain JSON as the decoder of tools takes it."""
    return None if value is None else gojson.loads(gojson.dumps(value))


def qualified(space: str, name: str) -> str:
    """The name that the model knows."""
    return name if not space or name.startswith(f"{space}.") else f"{space}.{name}"
