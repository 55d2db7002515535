"""POST /v1/messages: the request."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from ollama_compat import duration, gojson, gotypes, tool_choice, turns
from ollama_compat.anthropic.blocks import BLOCKS, turns_of
from ollama_compat.errors import BadRequest, Refused
from ollama_compat.gotypes import Member, Place
from ollama_compat.openai.common import sampling
from ollama_compat.schema import ChatRequest, Count, Flag, Text
from ollama_compat.turns import turn

_TYPE = 'struct { Role string "json:\\"role\\""; Content json.RawMessage "json:\\"content\\"" }'
_ROLE = gotypes.struct("MessageParam", (Member("role", gotypes.string, omit=False),), "anthropic")


def _param(value: Any, at: Place) -> dict[str, Any] | None:
    """A message: its role and the blocks of its content; a text alone is one block."""
    if not isinstance(value, dict):
        at.refuse(value, _TYPE)
        return None
    role = _ROLE(value, at)["role"]
    found = dict(gotypes.match_members(value, {"content": None}))
    if "content" not in found and not at.faults:
        raise BadRequest("unexpected end of JSON input")
    content = "" if found.get("content") is None else found["content"]
    if isinstance(content, str) and not isinstance(content, gojson.Number):
        return {"role": role, "content": [{"type": "text", "text": content}]}
    blocks = BLOCKS(content, at)
    return None if blocks is None else {"role": role, "content": blocks}


_MESSAGES = gotypes.array(gotypes.apart(_param), "[]anthropic.MessageParam", null={})


_TOOL = gotypes.struct(
    "Tool",
    (
        Member("type", gotypes.string, omit=False),
        Member("name", gotypes.string, omit=False),
        Member("description", gotypes.string, omit=False),
        Member("input_schema", gotypes.raw, None, omit=False),
        Member("max_uses", gotypes.integer, 0),
        Member("strict", gotypes.anything, None, omit=False),
    ),
    "anthropic",
)
_THINKING = gotypes.struct(
    "ThinkingConfig", (Member("type", gotypes.string, omit=False), Member("budget_tokens", gotypes.integer, 0)), "anthropic"
)
_OUTPUT = gotypes.struct(
    "OutputConfig", (Member("effort", gotypes.string, omit=False), Member("format", gotypes.raw, None)), "anthropic"
)
_METADATA = gotypes.struct("Metadata", (Member("user_id", gotypes.string),), "anthropic")
_CHOICE = gotypes.struct(
    "ToolChoice",
    (
        Member("type", gotypes.string, omit=False),
        Member("name", gotypes.string, omit=False),
        Member("disable_parallel_tool_use", gotypes.boolean, False),
    ),
    "anthropic",
)


_PROVIDERS = ("web_search", "web_fetch", "code_execution", "tool_search", "mcp_toolset")
"""Types of tools that the provider runs; others with a type (`bash_20250124`) are run by the client."""


@dataclasses.dataclass(frozen=True, slots=True)
class MessagesRequest:
    """The request."""

    model: Text = ""
    max_tokens: Count = 0
    messages: Annotated[list[dict[str, Any]] | None, _MESSAGES] = None
    system: Annotated[Any, gotypes.anything] = None
    stream: Flag = False
    temperature: Annotated[float | None, gotypes.float64] = None
    top_p: Annotated[float | None, gotypes.float64] = None
    top_k: Annotated[int | None, gotypes.integer] = None
    stop_sequences: Annotated[list[str] | None, gotypes.array(gotypes.string, "[]string", null="")] = None
    tools: Annotated[list[dict[str, Any]] | None, gotypes.array(_TOOL, "[]anthropic.Tool", null={})] = None
    tool_choice: Annotated[dict[str, Any] | None, _CHOICE] = None
    thinking: Annotated[dict[str, Any] | None, _THINKING] = None
    metadata: Annotated[dict[str, str] | None, _METADATA] = None  # checked, and not looked at
    output_config: Annotated[dict[str, Any] | None, _OUTPUT] = None
    output_format: Annotated[Any, gotypes.raw] = None  # the older place of a format; Ollama looks at neither


def check(request: MessagesRequest) -> None:
    """Refused when something is missing that has to be there."""
    if not request.model:
        raise Refused("model is required")
    if request.max_tokens <= 0:
        raise Refused("max_tokens is required and must be positive")
    if not request.messages:
        raise Refused("messages is required")


def to_native(request: MessagesRequest) -> ChatRequest:
    """The request of /api/chat that means the same. Raises Refused."""
    given = {
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop": request.stop_sequences or None,
    }
    return ChatRequest(
        model=request.model,
        messages=_system(request.system) + [native for message in request.messages or () for native in turns_of(message)],
        stream=request.stream,
        format=_format(request),
        tools=_tools(request),
        tool_choice=tool_choice.read(request.tool_choice),
        options=sampling(given),
        think=_think(request),
    )


def _system(value: Any) -> list[dict[str, Any]]:
    blocks = [{"type": "text", "text": value}] if isinstance(value, str) else value
    texts = [
        block["text"]
        for block in (blocks if isinstance(blocks, list) else ())
        if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)
    ]
    text = "".join(texts)
    return [turn("system", text)] if text else []


def _format(request: MessagesRequest) -> Any:
    """The JSON schema that the answer has to conform to."""
    form = (request.output_config or {}).get("format") or request.output_format
    return form.get("schema") if isinstance(form, dict) and form.get("type") == "json_schema" else None


def _tools(request: MessagesRequest) -> list[dict[str, Any]] | None:
    """Without the ones that run on the provider's machines: a model must not call what nobody runs."""
    return [_tool(tool) for tool in request.tools or () if not tool["type"].startswith(_PROVIDERS)] or None


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return turns.tool("function", tool["name"], tool["description"], tool["input_schema"], tool["strict"] is True)
    except ValueError as error:
        raise Refused(f"invalid input_schema for tool {duration.quote(tool['name'])}: {error}") from None


def _think(request: MessagesRequest) -> bool | str | None:
    """Enabled or disabled when that is said, else the level of effort, else as the model does by itself."""
    kind = request.thinking["type"] if request.thinking is not None else ""
    if kind in ("enabled", "disabled"):
        return kind == "enabled"
    effort = request.output_config["effort"].strip().lower() if request.output_config is not None else ""
    effort = "high" if effort == "xhigh" else effort
    return effort if effort in ("high", "medium", "low", "max") else None


def estimate(request: MessagesRequest) -> int:
    """Tokens of the prompt before they are counted: a fourth of the characters."""
    texts = [*_texts(request.system), *(text for message in request.messages or () for text in _texts(message["content"]))]
    tools = [f"{tool['name']}{tool['description']}{gojson.text_of(tool['input_schema'])}" for tool in request.tools or ()]
    return max(sum(map(len, texts + tools)) // 4, 1)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() if key not in ("type", "source") for text in _texts(item)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []
