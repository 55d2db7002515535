"""The input of /v1/responses: items of a conversation, and the native messages that they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ollama_compat import duration, gojson, gotypes, turns
from ollama_compat.errors import BadRequest, Refused
from ollama_compat.gotypes import Member, Place, Stopped
from ollama_compat.turns import turn

_LIST = "[]json.RawMessage"


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """An item: its type, and its fields with their zeros. `content` is the decoded content of messages and outputs."""

    type: str
    fields: dict[str, Any]
    content: Sequence[dict[str, Any]] = ()


def _texts(*names: str) -> list[Member]:
    return [Member(name, gotypes.string, omit=False) for name in names]


def _struct(name: str, *texts: str, more: Sequence[Member] = ()) -> gotypes.Kind:
    return gotypes.struct(name, [*_texts(*texts), *more], "openai")


_HEAD = gotypes.struct(
    "", _texts("type", "role"), go_type='struct { Type string "json:\\"type\\""; Role string "json:\\"role\\"" }'
)
_PART = gotypes.struct("", _texts("type"), go_type='struct { Type string "json:\\"type\\"" }')
_OUTPUT = _struct("", "type", "call_id")
_SUMMARY = _struct("ResponsesReasoningSummary", "type", "text")
_ACTION = _struct("ResponsesWebSearchAction", "type", "query")
_ITEMS = {
    "function_call": _struct("ResponsesFunctionCall", "id", "type", "call_id", "name", "arguments", "namespace"),
    "reasoning": _struct(
        "ResponsesReasoningInput",
        *("id", "type", "encrypted_content"),
        more=[Member("summary", gotypes.array(_SUMMARY, "[]openai.ResponsesReasoningSummary", null={}), None)],
    ),
    "web_search_call": _struct("ResponsesWebSearchCall", "id", "type", "status", more=[Member("action", _ACTION, None)]),
}
_CONTENTS = {
    "input_text": _struct("ResponsesTextContent", "type", "text"),
    "output_text": _struct("ResponsesOutputTextContent", "type", "text"),
    "input_image": _struct("ResponsesImageContent", "type", "detail", "file_id", "image_url"),
    "input_file": _struct("ResponsesFileContent", "type", "file_data", "file_id", "file_url", "filename"),
}


# ---------------------------------------------------------------- decoding


def decode_input(value: Any) -> str | list[Item]:
    """A text, or items. BadRequest says which one is wrong."""
    if isinstance(value, str) and not isinstance(value, gojson.Number):
        return value
    return [_within(f"input[{at}]", _item, item) for at, item in enumerate(_elements("input", value))]


def _elements(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        kind = gotypes.word(value)
        raise BadRequest(f"{what} must be a string or array: json: cannot unmarshal {kind} into Go value of type {_LIST}")
    return value


def _within(where: str, decode: Any, value: Any) -> Any:
    try:
        return decode(value)
    except (BadRequest, Stopped) as error:
        raise BadRequest(f"{where}: {error}") from None


def _apart(kind: gotypes.Kind, value: Any) -> dict[str, Any]:
    """The value by a decoder of its own."""
    place = Place("", (), [])
    decoded = kind({} if value is None else value, place)
    if place.faults:
        raise BadRequest(place.faults[0].text())
    assert isinstance(decoded, dict)
    return decoded


def _item(value: Any) -> Item:
    head = _apart(_HEAD, value)
    kind = head["type"] or ("message" if head["role"] else "")
    if kind == "message":
        return Item(kind, head, _contents("content", value.get("content")))
    if kind == "function_call_output":
        return Item(kind, _apart(_OUTPUT, value), _contents("output", value.get("output")))
    if kind not in _ITEMS:
        raise BadRequest(
            f"unknown input item type: {duration.quote(kind)}" if kind else "input item missing required 'type' field"
        )
    return Item(kind, _apart(_ITEMS[kind], value))


def _contents(what: str, value: Any) -> list[dict[str, Any]]:
    """The parts of a content; a text alone is one part."""
    if value is None:
        return []
    if isinstance(value, str) and not isinstance(value, gojson.Number):
        return [{"type": "input_text", "text": value}]
    return [_within(f"{what}[{at}]", _content, part) for at, part in enumerate(_elements(what, value))]


def _content(value: Any) -> dict[str, Any]:
    kind = _apart(_PART, value)["type"]
    if kind not in _CONTENTS:
        raise BadRequest(f"unknown content type: {kind}")
    return _apart(_CONTENTS[kind], value)


# ---------------------------------------------------------------- messages


def turns_of(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The native messages. Calls join the assistant's message before them, reasoning the one after it."""
    messages: list[dict[str, Any]] = []
    thinking = ""
    for at, item in enumerate(items):
        if item.type == "reasoning":
            thinking = item.fields["encrypted_content"]
        elif item.type == "message":
            message = _message(item, thinking)
            thinking = "" if message["role"] == "assistant" else thinking
            if not _joins(message, messages, items[at + 1 : at + 2]):
                messages.append(message)
        elif item.type == "function_call":
            _add_call(messages, item, thinking)
            thinking = ""
        elif item.type == "function_call_output":
            text, images = _text(item.content)
            messages.append(turn("tool", text, images=images, tool_call_id=item.fields["call_id"]))
    return messages + ([turn("assistant", thinking=thinking)] if thinking else [])


def _message(item: Item, thinking: str) -> dict[str, Any]:
    text, images = _text(item.content)
    role = item.fields["role"]
    return turn(role, text, images=images, thinking=thinking if role == "assistant" else "")


def _joins(message: dict[str, Any], messages: list[dict[str, Any]], following: Sequence[Item]) -> bool:
    """Whether the message stood between a call and its output, and is now part of the message with that call.

    A tool's result has to follow the call that it answers.
    """
    last = messages[-1] if messages else {}
    output = next((item.fields["call_id"] for item in following if item.type == "function_call_output"), "")
    ids = [call.get("id") for call in last.get("tool_calls", ())]
    if message["role"] != "assistant" or last.get("role") != "assistant" or not output or output not in ids:
        return False
    texts = [text for text in (last["content"], message["content"]) if text]
    given = {key: value for key, value in last.items() if key in ("role", "tool_calls")}
    thinking = message.get("thinking") or last.get("thinking", "")
    images = [*last.get("images", ()), *message.get("images", ())]
    messages[-1] = turn(content="\n".join(texts), thinking=thinking, images=images, **given)
    return True


def _add_call(messages: list[dict[str, Any]], item: Item, thinking: str) -> None:
    fields = item.fields
    try:
        arguments = turns.arguments(fields["arguments"]) if fields["arguments"] else {}
    except ValueError as error:
        raise Refused(f"failed to parse function call arguments: {error}") from None
    space, name = fields["namespace"], fields["name"]
    name = f"{space}.{name}" if space and not name.startswith(f"{space}.") else name
    call = turns.tool_call(fields["call_id"], name, arguments)
    if not messages or messages[-1]["role"] != "assistant":
        messages.append(turn("assistant", thinking=thinking, tool_calls=[call]))
        return
    last = messages[-1]
    calls = [*last.get("tool_calls", ()), call]
    given = {key: value for key, value in last.items() if key in ("role", "content", "images")}
    messages[-1] = turn(**given, thinking=thinking or last.get("thinking", ""), tool_calls=calls)


def _text(contents: Sequence[dict[str, Any]]) -> tuple[str, list[str]]:
    """Text and pictures of a content."""
    images = []
    for content in contents:
        if content["type"] == "input_file":
            raise Refused("file inputs are not currently supported")
        if content.get("image_url"):
            images.append(turns.image_of_url(content["image_url"]))
    return "".join(content.get("text", "") for content in contents), images
