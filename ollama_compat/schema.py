"""The requests of the API, with fields named as Ollama's. They are decoded from these declarations (decoding.py) and described
by them (openapi.py)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from ollama_compat import api_values, gojson, gotypes, images, tool_choice
from ollama_compat.gotypes import Member, Place
from ollama_compat.tool_choice import Choice, Tool

# ---------------------------------------------------------------- messages and tools

@gotypes.accepts(type="object")
def _property(value: Any, at: Place) -> dict[str, Any] | None:
    decoded: dict[str, Any] | None = _PROPERTY(value, at)
    return decoded


@gotypes.accepts(type=["string", "array"])
def _property_type(value: Any, at: Place) -> Any:
    if isinstance(value, str) and not isinstance(value, gojson.Number):
        return value
    names = gotypes.apart(_STRINGS)(value, at)
    return names[0] if len(names) == 1 else names


_STRINGS = gotypes.array(gotypes.string, "[]string", null="")
_PROPERTIES = gotypes.ordered(_property, null={})
_PROPERTY = gotypes.struct(
    "ToolProperty",
    (
        Member("anyOf", gotypes.array(_property, "[]api.ToolProperty", null={}), []),
        Member("type", _property_type, []),
        Member("items", gotypes.anything, None),
        Member("description", gotypes.string),
        Member("enum", gotypes.array(gotypes.anything, "[]interface {}"), []),
        Member("properties", _PROPERTIES, None),
        Member("required", _STRINGS, []),
    ),
)
PARAMETERS = gotypes.struct(
    "ToolFunctionParameters",
    (
        Member("type", gotypes.string, omit=False),
        Member("$defs", gotypes.anything, None),
        Member("items", gotypes.anything, None),
        Member("required", _STRINGS, []),
        Member("properties", _PROPERTIES, None, omit=False),
    ),
)
NO_PARAMETERS = {"type": "", "properties": None}
_FUNCTION = gotypes.struct(
    "ToolFunction",
    (
        Member("name", gotypes.string, omit=False),
        Member("description", gotypes.string),
        Member("parameters", PARAMETERS, NO_PARAMETERS, omit=False),
    ),
)
_TOOL = gotypes.struct(
    "Tool",
    (
        Member("type", gotypes.string, omit=False),
        Member("items", gotypes.anything, None),
        Member("function", _FUNCTION, {"name": "", "parameters": NO_PARAMETERS}, omit=False),
    ),
)


@gotypes.accepts(**gotypes.schema_of(_TOOL))
def TOOL(value: Any, at: Place) -> Tool | None:
    decoded = _TOOL(value, at)
    if not isinstance(decoded, dict):
        return None
    function = value.get("function")
    function = function if isinstance(function, dict) else {}
    given = gojson.plain(function.get("parameters"))
    strict = function.get("strict") is True or value.get("strict") is True
    return Tool(decoded, given if isinstance(given, dict) else None, strict)


_CALL_FUNCTION = gotypes.struct(
    "ToolCallFunction",
    (
        Member("index", gotypes.integer, 0, omit=False),
        Member("name", gotypes.string, omit=False),
        Member("arguments", gotypes.ordered(gotypes.anything), {}, omit=False),
    ),
)
_CALL = gotypes.struct(
    "ToolCall",
    (
        Member("id", gotypes.string),
        Member("function", _CALL_FUNCTION, {"index": 0, "name": "", "arguments": {}}, omit=False),
    ),
)
_MESSAGE_FIELDS = gotypes.apart(
    gotypes.struct(
        "Alias",  # the name of the type that Ollama decodes a message through; it shows in error texts
        (
            Member("role", gotypes.string, omit=False),
            Member("content", gotypes.string, omit=False),
            Member("thinking", gotypes.string),
            Member("images", gotypes.array(images.image, "[]api.ImageData", null=""), []),
            Member("tool_calls", gotypes.array(_CALL, "[]api.ToolCall", null={}), []),
            Member("tool_name", gotypes.string),
            Member("tool_call_id", gotypes.string),
        ),
    )
)


@gotypes.accepts(**gotypes.schema_of(_MESSAGE_FIELDS))
def _message(value: Any, at: Place) -> dict[str, Any]:
    message: dict[str, Any] = _MESSAGE_FIELDS(value, at)
    return {**message, "role": message["role"].lower()}


# ---------------------------------------------------------------- requests

Text = Annotated[str, gotypes.string]
Given = Annotated[str | None, gotypes.string]  # a text that may be empty, but not absent
Flag = Annotated[bool, gotypes.boolean]
Count = Annotated[int, gotypes.integer]
Raw = Annotated[Any, gotypes.raw]
Seconds = Annotated[float | None, api_values.keep_alive]
Think = Annotated[bool | str | None, api_values.think]
Map = Annotated[dict[str, Any] | None, gotypes.options]
Files = Annotated[dict[str, str] | None, gotypes.mapping(gotypes.string, "map[string]string", null="")]
Images = Annotated[list[str] | None, gotypes.array(images.image, "[]api.ImageData", null="")]
Tokens = Annotated[list[int] | None, gotypes.array(gotypes.integer, "[]int", null=gojson.Number("0"))]
Messages = Annotated[list[dict[str, Any]] | None, gotypes.array(_message, "[]api.Message", null={})]
Tools = Annotated[list[dict[str, Any]] | None, gotypes.array(TOOL, "api.Tools", null={})]


@dataclasses.dataclass(frozen=True, slots=True)
class GenerateRequest:
    """POST /api/generate."""

    model: Text = ""
    prompt: Text = ""
    suffix: Text = ""
    system: Text = ""
    template: Text = ""
    context: Tokens = None
    stream: Flag = True
    raw: Flag = False
    format: Raw = None
    keep_alive: Seconds = None
    images: Images = None
    options: Map = None
    think: Think = None
    truncate: Flag = True
    shift: Annotated[bool | None, gotypes.boolean] = None
    debug_render_only: Annotated[bool, gotypes.boolean, "_debug_render_only"] = False
    logprobs: Flag = False
    top_logprobs: Count = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ChatRequest:
    """POST /api/chat. Messages and tools are dicts in the form in which Ollama would write them again."""

    model: Text = ""
    messages: Messages = None
    stream: Flag = True
    format: Raw = None
    keep_alive: Seconds = None
    tools: Tools = None
    tool_choice: Annotated[Choice, tool_choice.choice] = tool_choice.FREE  # not looked at by Ollama
    options: Map = None
    think: Think = None
    truncate: Flag = True
    shift: Annotated[bool | None, gotypes.boolean] = None
    debug_render_only: Annotated[bool, gotypes.boolean, "_debug_render_only"] = False
    logprobs: Flag = False
    top_logprobs: Count = 0


@dataclasses.dataclass(frozen=True, slots=True)
class EmbedRequest:
    """POST /api/embed."""

    model: Text = ""
    input: Raw = None
    keep_alive: Seconds = None
    truncate: Flag = True
    dimensions: Count = 0
    options: Map = None


@dataclasses.dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """POST /api/embeddings, the older form."""

    model: Text = ""
    prompt: Text = ""
    keep_alive: Seconds = None
    options: Map = None


@dataclasses.dataclass(frozen=True, slots=True)
class CreateRequest:
    """POST /api/create."""

    model: Text = ""
    stream: Flag = True
    quantize: Text = ""
    imatrix: Files = None
    draft_quantize: Text = ""
    from_: Annotated[str, gotypes.string, "from"] = ""
    remote_host: Text = ""
    files: Files = None
    draft_files: Files = None
    adapters: Files = None
    template: Text = ""
    license: Annotated[Any, gotypes.anything] = None
    system: Text = ""
    parameters: Map = None
    messages: Messages = None
    renderer: Text = ""
    parser: Text = ""
    requires: Text = ""
    info: Map = None
    name: Text = ""
    quantization: Text = ""


@dataclasses.dataclass(frozen=True, slots=True)
class DeleteRequest:
    """DELETE /api/delete."""

    model: Text = ""
    name: Text = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ShowRequest:
    """POST /api/show."""

    model: Text = ""
    system: Text = ""
    template: Text = ""
    verbose: Flag = False
    options: Map = None
    name: Text = ""


@dataclasses.dataclass(frozen=True, slots=True)
class CopyRequest:
    """POST /api/copy."""

    source: Text = ""
    destination: Text = ""


@dataclasses.dataclass(frozen=True, slots=True)
class PullRequest:
    """POST /api/pull."""

    model: Text = ""
    insecure: Flag = False
    username: Text = ""
    password: Text = ""
    stream: Flag = True
    name: Text = ""


@dataclasses.dataclass(frozen=True, slots=True)
class PushRequest:
    """POST /api/push."""

    model: Text = ""
    insecure: Flag = False
    username: Text = ""
    password: Text = ""
    stream: Flag = True
    name: Text = ""


@dataclasses.dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """POST /api/tokenize. Ollama has no such route; the names are those of the proposals made to it, of llama-server and vLLM."""

    model: Text = ""
    content: Given = None
    text: Given = None  # other names for `content`
    prompt: Given = None
    add_special: Flag = False
    parse_special: Flag = True
    keep_alive: Seconds = None
    options: Map = None


@dataclasses.dataclass(frozen=True, slots=True)
class RerankRequest:
    """POST /api/rerank and /v1/rerank. Ollama has no such route; the names are those of Jina, Cohere and llama-server."""

    model: Text = ""
    query: Text = ""
    documents: Annotated[list[Any] | None, gotypes.array(gotypes.anything, "[]string", null="")] = None
    top_n: Count = 0
    return_documents: Flag = False
    keep_alive: Seconds = None
    options: Map = None


@dataclasses.dataclass(frozen=True, slots=True)
class DetokenizeRequest:
    """POST /api/detokenize."""

    model: Text = ""
    tokens: Tokens = None
    keep_alive: Seconds = None
    options: Map = None
