"""Messages of a conversation in the form of /api/chat, for the dialects of the API that write them in another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat import gojson, gotypes, images, schema
from ollama_compat.answer import Finished
from ollama_compat.errors import BadRequest, Refused
from ollama_compat.gotypes import Place, Stopped
from ollama_compat.tool_choice import Tool

_URL_TYPES = ("jpeg", "jpg", "png", "webp")
_ARGUMENTS = gotypes.ordered(gotypes.anything)

WORTH_TELLING = 256
"""Tokens from the cache below which a reply keeps to Ollama's own fields: strict clients know no others."""


class Heard:
    """Listens to the end of an answer for what its last object does not tell."""

    def __init__(self) -> None:
        self.cached = 0  # tokens of the prompt that were computed before

    def __call__(self, finished: Finished) -> None:
        self.cached = finished.cached


def turn(
    role: str,
    content: str = "",
    *,
    thinking: str = "",
    images: Sequence[str] = (),
    tool_calls: Sequence[Mapping[str, Any]] = (),
    tool_name: str = "",
    tool_call_id: str = "",
) -> dict[str, Any]:
    """A message; what is empty is left out, as in one that came over the wire."""
    optional = {"thinking": thinking, "images": list(images), "tool_calls": list(tool_calls)}
    optional |= {"tool_name": tool_name, "tool_call_id": tool_call_id}
    return {"role": role.lower(), "content": content, **{key: value for key, value in optional.items() if value}}


def tool_call(call_id: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A call that the assistant made earlier."""
    return {**({"id": call_id} if call_id else {}), "function": {"index": 0, "name": name, "arguments": arguments}}


def arguments(text: str) -> dict[str, Any]:
    """The object that the text of a call's arguments is; `null` is an empty one. ValueError, with Go's words, when it is none."""
    value = gojson.unmarshal(text.encode())
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("Value looks like object, but can't find closing '}' symbol")
    try:
        decoded: dict[str, Any] = _ARGUMENTS(value, Place("", (), []))
    except Stopped as error:
        raise ValueError(str(error)) from None
    return decoded


def parameters(value: Any) -> dict[str, Any]:
    """The schema of a tool's arguments as /api/chat takes it. ValueError, with Go's words, when it cannot be one."""
    if value is None:
        return dict(schema.NO_PARAMETERS)
    place = Place("", (), [])
    try:
        decoded = schema.PARAMETERS(value, place)
    except (Stopped, BadRequest) as error:
        raise ValueError(str(error)) from None
    if place.faults:
        raise ValueError(place.faults[0].text())
    assert isinstance(decoded, dict)
    return decoded


def tool(kind: str, name: str, description: str, given: Any, strict: bool = False) -> Tool:
    """A tool as /api/chat takes it, of the schema `given`. ValueError, with Go's words, when that cannot be one."""
    described = {"description": description} if description else {}
    fields = {"type": kind, "function": {"name": name, **described, "parameters": parameters(given)}}
    plain = gojson.plain(given)
    return Tool(fields, plain if isinstance(plain, dict) else None, strict)


def image_of_url(url: str) -> str:
    """Base64 text of the picture that a data URL holds. Refused for any other URL."""
    if url.startswith(("http://", "https://")):
        raise Refused("image URLs are not currently supported, please use base64 encoded data instead")
    for prefix in ("data:;base64,", *(f"data:image/{kind};base64," for kind in _URL_TYPES)):
        if url.startswith(prefix):
            data = url.removeprefix(prefix)
            if images.base64_fault(data) is None:
                return data
            break
    raise Refused("invalid image input")
