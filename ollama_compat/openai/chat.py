"""POST /v1/chat/completions: requests and answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from ollama_compat import gotypes, images, schema, tool_choice, turns
from ollama_compat.errors import Refused
from ollama_compat.gotypes import Member
from ollama_compat.openai import common
from ollama_compat.openai.beyond import Beyond, native_options
from ollama_compat.schema import ChatRequest, Flag, Text
from ollama_compat.stream import DONE, Part
from ollama_compat.turns import Heard, turn

Float = Annotated[float | None, gotypes.float64]
Whole = Annotated[int | None, gotypes.integer]
Any_ = Annotated[Any, gotypes.anything]


_CALL_FUNCTION = gotypes.struct(
    "",
    (Member("name", gotypes.string, omit=False), Member("arguments", gotypes.string, omit=False)),
    go_type='struct { Name string "json:\\"name\\""; Arguments string "json:\\"arguments\\"" }',
)
_CALL = gotypes.struct(
    "ToolCall",
    (
        Member("id", gotypes.string, omit=False),
        Member("index", gotypes.integer, 0),
        Member("type", gotypes.string),
        Member("function", _CALL_FUNCTION, {"name": "", "arguments": ""}, omit=False),
    ),
    "openai",
)
_MESSAGE = gotypes.struct(
    "Message",
    (
        Member("role", gotypes.string, omit=False),
        Member("content", gotypes.anything, None, omit=False),
        Member("reasoning", gotypes.string, omit=False),
        Member("reasoning_content", gotypes.anything, None, omit=False),  # DeepSeek's name for it, unknown to Ollama
        Member("tool_calls", gotypes.array(_CALL, "[]openai.ToolCall", null={}), None, omit=False),
        Member("name", gotypes.string, omit=False),
        Member("tool_call_id", gotypes.string, omit=False),
    ),
    "openai",
)
_SCHEMA = gotypes.struct("JsonSchema", (Member("schema", gotypes.raw, None),), "openai")
_FORMAT = gotypes.struct(
    "ResponseFormat", (Member("type", gotypes.string, omit=False), Member("json_schema", _SCHEMA, {}, omit=False)), "openai"
)
_STREAM_OPTIONS = gotypes.struct("StreamOptions", (Member("include_usage", gotypes.boolean, False, omit=False),), "openai")
_REASONING = gotypes.struct("Reasoning", (Member("effort", gotypes.string, omit=False),), "openai")
StreamOptions = Annotated[dict[str, bool] | None, _STREAM_OPTIONS]


@dataclasses.dataclass(frozen=True, slots=True)
class ChatCompletionRequest(Beyond):
    """The request. The last two fields are not looked at by Ollama either."""

    model: Text = ""
    messages: Annotated[list[dict[str, Any]] | None, gotypes.array(_MESSAGE, "[]openai.Message", null={})] = None
    stream: Flag = False
    stream_options: StreamOptions = None
    max_tokens: Whole = None
    seed: Whole = None
    stop: Any_ = None
    temperature: Float = None
    frequency_penalty: Float = None
    presence_penalty: Float = None
    top_p: Float = None
    response_format: Annotated[dict[str, Any] | None, _FORMAT] = None
    tools: Annotated[list[dict[str, Any]] | None, gotypes.array(schema.TOOL, "[]api.Tool", null={})] = None
    reasoning: Annotated[dict[str, str] | None, _REASONING] = None
    reasoning_effort: Annotated[str | None, gotypes.string] = None
    logprobs: Flag = False
    top_logprobs: schema.Count = 0
    debug_render_only: Annotated[bool, gotypes.boolean, "_debug_render_only"] = False
    tool_choice: Any_ = None
    parallel_tool_calls: Any_ = None


# ---------------------------------------------------------------- request


def to_native(request: ChatCompletionRequest) -> ChatRequest:
    """The request of /api/chat that means the same. Raises Refused."""
    if not request.messages:
        raise Refused("[] is too short - 'messages'")
    effort = request.reasoning["effort"] if request.reasoning is not None else request.reasoning_effort or ""
    return ChatRequest(
        model=request.model,
        messages=[native for message in request.messages for native in _turns(message, request.messages)],
        stream=request.stream,
        format=_format(request.response_format),
        tools=_callable(request.tools),
        tool_choice=tool_choice.read(request.tool_choice, several=request.parallel_tool_calls is not False),
        options=_options(request),
        think=common.think(effort),
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs,
        debug_render_only=request.debug_render_only,
    )


def _callable(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Without those that have no function's name: the provider runs them (`web_search`), or nobody could be called."""
    named = [tool for tool in tools or () if tool["function"]["name"]]
    return named if named or not tools else None


def _options(request: ChatCompletionRequest) -> dict[str, Any]:
    """OpenAI's defaults win over those of the model, as in Ollama; `options`, which some clients send, win over both."""
    limit = request.max_completion_tokens if request.max_tokens is None else request.max_tokens
    given = {
        "stop": stops(request.stop),
        "num_predict": limit,
        "temperature": request.temperature,
        "seed": request.seed,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "top_p": request.top_p,
    }
    return {"temperature": 1.0, "top_p": 1.0} | native_options(request) | common.sampling(given)


def stops(value: Any) -> list[str] | None:
    """Stop strings from one or several; what is no text is passed over."""
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else None


def _format(wanted: Mapping[str, Any] | None) -> Any:
    kind = wanted["type"].strip().lower() if wanted is not None else ""
    if kind == "json_object":
        return "json"
    return wanted["json_schema"].get("schema") if wanted is not None and kind == "json_schema" else None


def _turns(message: Mapping[str, Any], history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The native messages of one: a part of its content is a message of its own."""
    content, role, told = message["content"], message["role"], message["reasoning_content"]
    given = {
        "thinking": message["reasoning"] or (told if isinstance(told, str) else ""),
        "tool_calls": _calls(message["tool_calls"] or ()),
        "tool_name": _tool_name(message, history),
        "tool_call_id": message["tool_call_id"],
    }
    if isinstance(content, list):
        parts = [_part(role, part) for part in content]
        belongs = parts and (given["tool_calls"] or role.lower() == "tool")
        return [*parts[:-1], turn(**(parts[-1] | given))] if belongs else parts
    if not isinstance(content, str) and message["tool_calls"] is None:
        raise Refused(f"invalid message content type: {_go_type(content)}")
    return [turn(role, content if isinstance(content, str) else "", **given)]


def _go_type(value: Any) -> str:
    if value is None:
        return "<nil>"
    return {bool: "bool", dict: "map[string]interface {}"}.get(type(value), "float64")


def _calls(calls: Any) -> list[dict[str, Any]]:
    try:
        return [
            turns.tool_call(call["id"], call["function"]["name"], turns.arguments(call["function"]["arguments"]))
            for call in calls
        ]
    except ValueError:
        raise Refused("invalid tool call arguments") from None


def _tool_name(message: Mapping[str, Any], history: list[dict[str, Any]]) -> str:
    """Of a tool's result: as it says itself, else that of the latest call with its id."""
    if message["role"].lower() != "tool" or message["name"]:
        return message["name"] if message["role"].lower() == "tool" else ""
    calls = (call for other in reversed(history) for call in other["tool_calls"] or ())
    wanted = message["tool_call_id"]
    return next((call["function"]["name"] for call in calls if wanted and call["id"] == wanted), "")


def _part(role: str, part: Any) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return turn(role, part["text"])
    if kind == "image_url":
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, dict) else url
        if isinstance(url, str):
            return turn(role, images=[turns.image_of_url(url)])
    if kind == "input_audio":
        return turn(role, images=[_audio(part.get("input_audio"))])
    raise Refused("invalid message format")


def _audio(audio: Any) -> str:
    if not isinstance(audio, dict):
        raise Refused("invalid input_audio format")
    data = audio.get("data")
    if not isinstance(data, str):
        raise Refused("invalid input_audio format: missing data")
    fault = images.base64_fault(data)
    if fault is not None:
        raise Refused(f"invalid input_audio base64 data: illegal base64 data at input byte {fault}")
    return data


# ---------------------------------------------------------------- answer


def completion(replies: Sequence[Part], heard: Heard) -> Part:
    """The answers in one object."""
    reply = replies[0]
    choices = [_choice(at, other) for at, other in enumerate(replies)]
    head = {"id": common.identity("chatcmpl-"), "object": "chat.completion", "created": common.now(), "model": reply["model"]}
    debug = {"_debug_info": reply["_debug_info"]} if "_debug_info" in reply else {}
    return head | {"system_fingerprint": "fp_ollama", "choices": choices, "usage": common.usage(replies, heard.cached)} | debug


def _choice(index: int, reply: Part) -> Part:
    message = reply["message"]
    calls = tool_calls(message)
    reason = {"finish_reason": _reason(reply, bool(calls))}
    return {"index": index, "message": _message(message, calls), **reason, **_logprobs(reply)}


def _message(message: Mapping[str, Any], calls: list[Part]) -> Part:
    thinking = message.get("thinking")
    optional = {**({"reasoning": thinking} if thinking else {}), **({"tool_calls": calls} if calls else {})}
    return {"role": message["role"], "content": message["content"], **optional}


def tool_calls(message: Mapping[str, Any]) -> list[Part]:
    """The calls of a native message, their arguments as text."""
    return [
        {
            "id": common.call_id(call["id"]),
            "index": call["function"]["index"],
            "type": "function",
            "function": {"name": call["function"]["name"], "arguments": common.arguments_text(call)},
        }
        for call in message.get("tool_calls", ())
    ]


def _reason(reply: Part, called: bool) -> str | None:
    reason = reply.get("done_reason")
    return "tool_calls" if reason == "stop" and called else reason


def _logprobs(reply: Part) -> Part:
    return {"logprobs": {"content": reply["logprobs"]}} if reply.get("logprobs") else {}


class Chunks:
    """Makes the events of a streamed answer, or of several."""

    def __init__(self, request: ChatCompletionRequest, heard: Heard, count: int = 1) -> None:
        self._heard = heard
        self._with_usage = bool(request.stream_options and request.stream_options["include_usage"])
        self._head = {"id": common.identity("chatcmpl-"), "object": "chat.completion.chunk", "created": common.now()}
        self._head |= {"model": request.model, "system_fingerprint": "fp_ollama"}
        self._count = count
        self._started: set[int] = set()
        self._called: set[int] = set()
        self._ends: list[Part] = []  # the last native object of each answer that is complete

    def feed(self, reply: Part, index: int = 0) -> list[Part]:
        """The events for a native object of one answer: its deltas, and after the last one the end."""
        message = reply["message"]
        says = message["content"] or message.get("thinking") or message.get("tool_calls") or reply.get("logprobs")
        events = [] if reply["done"] and index in self._started and not says else list(self._deltas(reply, index))
        return events + (self._end(reply, index) if reply["done"] else [])

    def _deltas(self, reply: Part, index: int) -> Iterator[Part]:
        """One chunk, or two where reasoning and something else come together."""
        message, logprobs = reply["message"], _logprobs(reply)
        calls = tool_calls(message)
        self._called |= {index} if calls else set()
        content = {"content": message["content"]}
        reasoning = {"reasoning": message["thinking"]} if message.get("thinking") else {}
        other = content | ({"tool_calls": calls} if calls else {})
        if reasoning and (message["content"] or calls):
            yield self._chunk(index, self._role(index) | reasoning, logprobs)
            yield self._chunk(index, other, {})
        else:
            yield self._chunk(index, self._role(index) | content | reasoning | other, logprobs)

    def _role(self, index: int) -> Part:
        started = index in self._started
        self._started.add(index)
        return {} if started else {"role": "assistant"}

    def _chunk(self, index: int, delta: Part, logprobs: Part, reason: str | None = None) -> Part:
        return self._head | {"choices": [{"index": index, "delta": delta, "finish_reason": reason, **logprobs}]}

    def _end(self, reply: Part, index: int) -> list[Part]:
        self._ends.append(reply)
        end = self._chunk(index, {}, {}, _reason(reply, index in self._called) or "stop")
        if len(self._ends) < self._count:
            return [end]
        usage = self._head | {"choices": [], "usage": common.usage(self._ends, self._heard.cached)}
        return [end, *([usage] if self._with_usage else []), DONE]
