"""How Ollama's renderers write values: JSON of several kinds, Go's `%v`, and the places of pictures."""

from __future__ import annotations

from typing import Any

from ollama_compat.gospace import SPACE
from ollama_compat.template.gotemplate import values
from ollama_compat.template.gotemplate.floats import format_json
from ollama_compat.template.gotemplate.marshal import json_string
from ollama_compat.template.gotemplate.printf import show
from runtime.frames import BREAK

_UNESCAPED = {"\\u003c": "<", "\\u003e": ">", "\\u0026": "&"}


def to_json(value: Any, *, spaces: bool = False, html: bool = True) -> str:
    """JSON on one line, objects in their own order. `spaces` behind `:` and `,`; `html`: `<`, `>` and `&` are escaped."""
    colon, comma = (": ", ", ") if spaces else (":", ",")
    if isinstance(value, dict):
        pairs = (f"{string(key, html=html)}{colon}{to_json(item, spaces=spaces, html=html)}" for key, item in value.items())
        return f"{{{comma.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{comma.join(to_json(item, spaces=spaces, html=html) for item in value)}]"
    return _scalar(value, html)


def tool_json(part: dict[str, Any]) -> str:
    """A tool, its function or parameters as JSON with spaces, `<`, `>` and `&` as they are but in `properties`: the type that
    keeps their order escapes them by itself."""
    pairs = (f"{string(key, html=False)}: {_tool_member(key, item)}" for key, item in part.items())
    return f"{{{', '.join(pairs)}}}"


def _tool_member(key: str, item: Any) -> str:
    if key in ("function", "parameters"):
        return tool_json(item)
    return to_json(item, spaces=True, html=key == "properties")


def indented(value: Any, indent: str = "    ", depth: int = 0) -> str:
    """JSON on several lines, as json.MarshalIndent writes it."""
    inner = "\n" + indent * (depth + 1)
    outer = "\n" + indent * depth
    if isinstance(value, dict) and value:
        pairs = (f"{string(key)}: {indented(item, indent, depth + 1)}" for key, item in value.items())
        return f"{{{inner}{f',{inner}'.join(pairs)}{outer}}}"
    if isinstance(value, list) and value:
        return f"[{inner}{f',{inner}'.join(indented(item, indent, depth + 1) for item in value)}{outer}]"
    return to_json(value)


def string(text: str, *, html: bool = True) -> str:
    """A JSON string."""
    quoted = json_string(text)
    if html or not any(escape in quoted for escape in _UNESCAPED):
        return quoted
    parts = quoted.split("\\\\")  # a back slash of the text itself does not begin an escape
    for escape, char in _UNESCAPED.items():
        parts = [part.replace(escape, char) for part in parts]
    return "\\\\".join(parts)


def _scalar(value: Any, html: bool) -> str:
    if isinstance(value, str):
        return string(value, html=html)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    assert isinstance(value, float)
    return format_json(value)


def verb_v(value: Any) -> str:
    """The value as Go's `%v` prints it."""
    return show(values.of(value))


def argument(value: Any) -> str:
    """An argument where strings stand without quotes: JSON for what has parts, else `%v`."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return value
    return to_json(value) if isinstance(value, dict | list) else verb_v(value)


def argument_json(value: Any, *, spaces: bool = False) -> str:
    """An argument where strings stand without quotes, and everything else as JSON."""
    return value if isinstance(value, str) else to_json(value, spaces=spaces)


def plain(text: str) -> str:
    """The text without the marks that keep its control tokens from being tokens: for looking into it."""
    return text.replace(BREAK, "")


def with_images(content: str, images: int, offset: int) -> str:
    """The content with `[img-N]` for its pictures, counted from `offset`: where it says `[img]`, else in front."""
    if images == 0 or "[img-" in content:
        return content
    front = ""
    for number in range(offset, offset + images):
        if "[img]" in content:
            content = content.replace("[img]", f"[img-{number}]", 1)
        else:
            front += f"[img-{number}]"
    if front and content and content[0] not in SPACE and content[0] != "\ufffd":
        front += " "
    return front + content
