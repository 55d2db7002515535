"""Messages as a Jinja template wants them: what llama-server does between a request and the template.

Ollama's messages become OpenAI's; then what the template cannot take is changed. What it can take is found by rendering
small conversations and looking for their words in the result (`probe`), as llama.cpp does at model load. Facts are from
llama.cpp `common/chat.cpp`, `common/jinja/caps.cpp` and `common/chat-diff-analyzer.cpp`. A message here is a dict with
the keys, in this order: role, content, reasoning_content?, name?, tool_call_id?, tool_calls?.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os.path
import re
from collections.abc import Callable, Sequence
from typing import Any

from ollama_compat import gojson

Message = dict[str, Any]
Render = Callable[..., str | None]
"""Renders messages (and `tools`, `enable_thinking`, `add_generation_prompt` by name); None when the template fails."""


_WORD = "Wasserfall"


class ConversationError(Exception):
    """The conversation itself cannot be rendered by any template; the text is llama-server's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Capabilities:
    """What a template can take, and how it marks reasoning."""

    typed_content: bool  # content must be a list of {"type": "text", "text": ...}
    system_role: bool
    object_arguments: bool  # the arguments of a tool call as an object; otherwise as JSON text
    reasoning_start: str  # "<think>\n"; "" when the template shows no reasoning
    reasoning_end: str  # "\n</think>\n\n"


def probe(source: str, render: Render) -> Capabilities:
    """The capabilities of the template `source`, found with `render`."""
    start, end = _reasoning_tags(source, render)
    return Capabilities(
        typed_content=_needs_typed_content(render),
        system_role=_shows_system(render),
        object_arguments=_takes_objects(render),
        reasoning_start=start,
        reasoning_end=end,
    )


def adapt(source: str, capabilities: Capabilities, messages: Sequence[Message]) -> list[Message]:
    """OpenAI messages for the template `source` from Ollama's `messages`."""
    adapted = [_message(message) for message in messages]
    if _TRIMMING in source:
        adapted = [{key: _trimmed(key, value) for key, value in message.items()} for message in adapted]
    if "<|channel|>" not in source:  # the one family whose templates know the role
        adapted = [message | {"role": "system"} if message["role"] == "developer" else message for message in adapted]
    if not capabilities.system_role:
        adapted = _without_system(adapted)
    if _SHORT_IDS in source:
        _shorten_ids(adapted)
    for message in adapted:
        for call in message.get("tool_calls", ()):
            _set_arguments(call["function"], capabilities.object_arguments)
        if capabilities.typed_content and isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
    return adapted


def _trimmed(key: str, value: Any) -> Any:
    return value.strip(" \t\n\v\f\r") if key in ("content", "reasoning_content") and isinstance(value, str) else value


def functions(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tool definitions with the fields, in the order, in which llama-server hands them to a template."""
    return [_function(tool) for tool in tools]


def dates() -> dict[str, str]:
    """Today as llama.cpp gives it to every template."""
    now = datetime.datetime.now()
    return {"datetime": now.strftime("%b %d %Y"), "date_string": now.strftime("%d %b %Y")}


def split_prefill(messages: list[Message]) -> tuple[list[Message], str | None]:
    """The messages, and the text that the answer has to continue when the last one is the assistant's.

    An empty last message asks for an answer from its beginning, as if it were not there.
    """
    if not messages or messages[-1]["role"] != "assistant":
        return messages, None
    if len(messages) > 1 and messages[-2]["role"] == "assistant":
        raise ConversationError("Cannot have 2 or more assistant messages at the end of the list.")
    if messages[-1].get("tool_calls"):
        raise ConversationError("Cannot continue an assistant message that contains tool calls.")
    return messages[:-1], _text(messages[-1]["content"]) or None


def answer(capabilities: Capabilities) -> Message:
    """A message of the assistant that says a word by which it is found again."""
    return {"role": "assistant", "content": [{"type": "text", "text": _WORD}] if capabilities.typed_content else _WORD}


def continuation(capabilities: Capabilities, without: str, with_prompt: str, answered: str, prefill: str) -> str:
    """What follows the conversation when the answer continues `prefill`; reasoning, where there is any, is over then.

    `without` and `with_prompt` are the conversation rendered without and with a generation prompt, `answered` with `answer`.
    """
    common = os.path.commonprefix((without, with_prompt))  # noqa: RUF071  (texts, compared character by character)
    generation_prompt = with_prompt[len(common) :]
    start, end = capabilities.reasoning_start, capabilities.reasoning_end
    stem = generation_prompt.partition(start.strip())[0] if start else generation_prompt
    if start and (start.strip() in generation_prompt or end.strip() not in generation_prompt):
        generation_prompt = stem + start + end
    lead = answered[len(without) :].partition(_WORD)[0] if answered.startswith(without) and _WORD in answered else ""
    return generation_prompt + _opening(stem, lead, (start.strip(), end.strip())) + prefill


def _opening(stem: str, lead: str, reasoning: Sequence[str]) -> str:
    """What a model writes before the text of its answer: the name of a channel, say, or of whom it speaks to.

    `stem`: the generation prompt up to the reasoning. `lead`: what stands between a conversation and a text that follows it.
    """
    opening = lead.removeprefix(stem)
    is_known = lead.startswith(stem) and not any(tag and tag in lead for tag in reasoning)
    return opening if is_known and opening.strip() else ""


# ---------------------------------------------------------------- Ollama's message -> OpenAI's


def _message(message: Message) -> Message:
    """`thinking` is left out: Ollama does not hand old reasoning to a Jinja template."""
    adapted: Message = {"role": message.get("role", ""), "content": message.get("content") or ""}
    named = message if message.get("name") else message | {"name": message.get("tool_name")}
    adapted |= {key: named[key] for key in ("reasoning_content", "name", "tool_call_id") if named.get(key)}
    if calls := message.get("tool_calls"):
        adapted["tool_calls"] = [_tool_call(call) for call in calls]
    return adapted


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    arguments = function.get("arguments") or {}
    if isinstance(arguments, dict):
        arguments = {key: _free(value) for key, value in arguments.items()}
    adapted = {"type": "function", "function": {"name": function.get("name", ""), "arguments": arguments}}
    return adapted | ({"id": call["id"]} if call.get("id") else {})


def _free(value: Any) -> Any:
    """JSON of no known type, as Go writes it again: objects sorted, whole numbers without a point."""
    if isinstance(value, list):
        return [_free(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    return {key: _free(value[key]) for key in sorted(value)} if isinstance(value, dict) else value


def _schema(schema: Any) -> Any:
    """Parameters, or one of them: what is of no known type is free JSON, the rest keeps its order."""
    found = {}
    for key, value in schema.items():
        if key in ("items", "$defs", "enum"):
            value = _free(value)
        elif key == "properties" and isinstance(value, dict):
            value = {name: _schema(inner or {}) for name, inner in value.items()}
        elif key == "anyOf":
            value = [_schema(choice or {}) for choice in value]
        found[key] = value
    return found


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function") or {}
    fields = {"name": function.get("name", ""), "description": function.get("description") or ""}
    return {"type": "function", "function": fields | {"parameters": _schema(function.get("parameters") or {})}}


def _set_arguments(function: dict[str, Any], as_object: bool) -> None:
    arguments = function["arguments"]
    if as_object and isinstance(arguments, str):
        try:
            function["arguments"] = json.loads(arguments)
        except json.JSONDecodeError as error:
            raise ConversationError(f"Failed to parse tool call arguments as JSON: {error}") from error
    elif not as_object and not isinstance(arguments, str):
        function["arguments"] = gojson.escaped(arguments)  # Ollama's argument text comes from Go's encoder


_SHORT_IDS = "length != 9"  # in templates of Mistral's, which refuse other ids
# StepFun's, whose models reason for ever after stray white space
_TRIMMING = "You have access to the following functions in JSONSchema format"


def _shorten_ids(messages: Sequence[Message]) -> None:
    """Gives calls ids of nine characters, and their results the same ones; results without an id follow the calls."""
    waiting: list[str] = []
    for number, message in enumerate(messages):
        for place, call in enumerate(message.get("tool_calls", ())):
            call["id"] = _short_id(call.get("id") or f"{number} {place}")
            waiting.append(call["id"])
        if message["role"] == "tool":
            given = message.get("tool_call_id")
            message["tool_call_id"] = _short_id(given) if given else next(iter(waiting), _short_id(""))
            waiting = [id for id in waiting if id != message["tool_call_id"]]


def _short_id(id: str) -> str:
    return id if len(id) == 9 else hashlib.sha256(id.encode()).hexdigest()[:9]


def _without_system(messages: list[Message]) -> list[Message]:
    """A first system message put in front of the next one's text (alone, it is dropped)."""
    if not messages or messages[0]["role"] != "system":
        return messages
    system, *rest = messages
    if rest:
        rest[0] = rest[0] | {"content": _text(system["content"]) + "\n" + _text(rest[0]["content"])}
    return rest


def _text(content: Any) -> str:
    """The text of a content that may be a list of parts."""
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


# ---------------------------------------------------------------- probes

_NEEDLE = "STRING_MARKER"
_USER = {"role": "user", "content": "User message"}
_REASONING = "REASON_PART I am thinking END_R"
_MARKER = r"(?:<[^<>]*>|\[[^\[\]]*\])"


def _needs_typed_content(render: Render) -> bool:
    if _NEEDLE in (render([{"role": "user", "content": _NEEDLE}]) or ""):
        return False
    return _NEEDLE in (render([{"role": "user", "content": [{"type": "text", "text": _NEEDLE}]}]) or "")


def _shows_system(render: Render) -> bool:
    return _NEEDLE in (render([{"role": "system", "content": _NEEDLE}, _USER]) or "")


def _takes_objects(render: Render) -> bool:
    """Whether arguments given as an object come out as JSON or tags, and not as the text of a Python dict."""
    call = {"id": "call00001", "type": "function", "function": {"name": "tool1", "arguments": {"arg": _NEEDLE}}}
    conversation = [
        _USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "Tool response", "tool_call_id": "call00001"},
        {"role": "assistant", "content": "The tool response was 'tool response'"},
        _USER,
    ]
    properties = {"arg": {"type": "string", "description": "Arg description"}}
    parameters = {"type": "object", "properties": properties, "required": ["arg"]}
    function = {"name": "tool1", "description": "Tool description", "parameters": parameters}
    rendered = render(conversation, tools=[{"name": "tool", "type": "function", "function": function}]) or ""
    return _NEEDLE in rendered and f"'arg': '{_NEEDLE}'" not in rendered


def _reasoning_tags(source: str, render: Render) -> tuple[str, str]:
    """The texts around reasoning, with their white space."""
    if "content.split('</think>')" in source and "reasoning_content" not in source and "<SPECIAL_12>" not in source:
        return "<think>", "</think>"  # these cut reasoning out of old messages and never write it
    answer = {"role": "assistant", "content": "Assistant message", "reasoning_content": _REASONING}
    rendered = render([_USER, answer], enable_thinking=True, add_generation_prompt=False) or ""
    around = re.search(rf"({_MARKER}\s*){_REASONING}(\s*{_MARKER}\s*)", rendered)
    if around:
        return around[1], around[2]
    return _tags_of_prompt(render) or (("<think>", "</think>") if "</think>" in source else ("", ""))


def _tags_of_prompt(render: Render) -> tuple[str, str] | None:
    """The tags of the empty reasoning that ends the prompt when thinking is off."""
    off = render([_USER], enable_thinking=False) or ""
    both = re.search(rf"({_MARKER})\s*({_MARKER})\s*$", off)
    on = render([_USER], enable_thinking=True) or ""
    return None if both is None or on.rstrip().endswith(both[2]) else (both[1], both[2])
