"""Blocks of a message's content, and the native messages that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat import gojson, gotypes, images, turns
from ollama_compat.errors import Refused
from ollama_compat.gotypes import Member
from ollama_compat.turns import turn

_SOURCE = gotypes.struct(
    "ImageSource",
    (
        Member("type", gotypes.string, omit=False),
        Member("media_type", gotypes.string),
        Member("data", gotypes.string, omit=False),
        Member("url", gotypes.string),
        Member("content", gotypes.anything, None),  # of a document; unknown to Ollama, like its title
    ),
    "anthropic",
)
_BLOCK = gotypes.struct(
    "ContentBlock",
    (
        Member("type", gotypes.string, omit=False),
        Member("text", gotypes.string),
        Member("source", _SOURCE, None),
        Member("id", gotypes.string),
        Member("name", gotypes.string),
        Member("input", gotypes.ordered(gotypes.anything), {}),
        Member("tool_use_id", gotypes.string),
        Member("content", gotypes.anything, None),
        Member("is_error", gotypes.boolean, False),
        Member("thinking", gotypes.string),
        Member("signature", gotypes.string),
        Member("title", gotypes.anything, None),
    ),
    "anthropic",
)
BLOCKS = gotypes.array(_BLOCK, "[]anthropic.ContentBlock", null={})
Block = Mapping[str, Any]


def turns_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The native messages of one: results of tools are messages of their own, and come first in a user's turn.

    Blocks of unknown types are dropped. Raises Refused.
    """
    role, blocks = message["role"].lower(), message["content"]
    results = [_result(block) for block in blocks if block["type"] in ("tool_result", "web_search_tool_result")]
    text = _texts(blocks)
    images = [_image(block.get("source")) for block in blocks if block["type"] == "image"]
    calls = [_call(block) for block in blocks if block["type"] in ("tool_use", "server_tool_use")]
    thoughts = [block["thinking"] for block in blocks if block["type"] == "thinking" and "thinking" in block]
    thinking = thoughts[-1] if thoughts else ""
    own = [turn(role, text, thinking=thinking, images=images, tool_calls=calls)] if text or images or calls or thinking else []
    return [*results, *own] if role == "user" else [*own, *results]


def _texts(blocks: Sequence[Block]) -> str:
    """What blocks say: texts, and documents that are given as text."""
    return "".join(_document(block) if block.get("type") == "document" else _text(block) for block in blocks)


def _text(block: Block) -> str:
    text = block.get("text")
    return text if block.get("type") == "text" and isinstance(text, str) else ""


def _document(block: Block) -> str:
    """A document with its title above it; empty where it is none of text: nothing here reads other files."""
    source, title = block.get("source"), block.get("title")
    source = source if isinstance(source, dict) else {}
    text = source.get("data") if source.get("type") == "text" else source.get("content")
    if isinstance(text, list):
        text = _texts([part for part in text if isinstance(part, dict)])
    if source.get("type") not in ("text", "content") or not isinstance(text, str) or not text:
        return ""
    return f"{title}\n\n{text}\n\n" if isinstance(title, str) and title else f"{text}\n\n"


def _image(source: Mapping[str, Any] | None) -> str:
    """Base64 text of a picture."""
    if source is None:
        raise Refused("invalid image source")
    if source["type"] != "base64":
        raise Refused(f"invalid image source type: {source['type']}. Only base64 images are supported.")
    fault = images.base64_fault(source["data"])
    if fault is not None:
        raise Refused(f"invalid base64 image data: illegal base64 data at input byte {fault}")
    data: str = source["data"]
    return data


def _call(block: Block) -> dict[str, Any]:
    for field in ("id", "name") if block["type"] == "tool_use" else ():
        if not block.get(field):
            raise Refused(f"tool_use block missing required '{field}' field")
    return turns.tool_call(block.get("id", ""), block.get("name", ""), block.get("input", {}))


def _result(block: Block) -> dict[str, Any]:
    content, answered = block.get("content"), block.get("tool_use_id", "")
    if block["type"] == "web_search_tool_result":
        return turn("tool", _search_text(content), tool_call_id=answered)
    if isinstance(content, str):
        return turn("tool", content, tool_call_id=answered)
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    images = [_result_image(part) for part in parts if part.get("type") == "image"]
    return turn("tool", _texts(parts), images=images, tool_call_id=answered)


def _result_image(part: Mapping[str, Any]) -> str:
    source = part.get("source")
    if not isinstance(source, dict):
        raise Refused("invalid tool_result image source")
    return _image({key: source[key] if isinstance(source.get(key), str) else "" for key in ("type", "data")})


def _search_text(content: Any) -> str:
    """Results of a search that somebody else has run, as text."""
    if isinstance(content, str):
        return content
    items: Sequence[Any] = content if isinstance(content, list) else [content]
    lines = []
    for item in items:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "web_search_tool_result_error":
            return ": ".join(text for text in (kind, item.get("error_code")) if isinstance(text, str) and text)
        if kind == "web_search_result":
            lines.append(f"- {item.get('title') or ''}: {item.get('url') or ''}\n")
    return "".join(lines) if isinstance(content, list) else gojson.dumps(content).decode()
