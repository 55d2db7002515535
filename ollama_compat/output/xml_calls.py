"""Calls in tags that look like XML, read as strictly as Go's encoding/xml reads what Ollama makes of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat.output.call_values import trimmed, types_of
from ollama_compat.output.events import CallError

_VALUED = re.compile(r"<([A-Za-z0-9_]+)=([^>]+)>")
_TAG = re.compile(r'</?(?:function|parameter)(?:[\t\n\f\r ]+name="[^"]*")?>')
_PARTS = re.compile(r'<(/?)(\w+)(?:\s+name="([^"]*)")?>')
_ESCAPES = {'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\t": "&#x9;", "\n": "&#xA;", "\r": "&#xD;"}
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclasses.dataclass(slots=True)
class Element:
    """An element: its own text, without that of its children."""

    name: str
    attribute: str = ""
    text: str = ""
    children: list[Element] = dataclasses.field(default_factory=list)


def function_call(raw: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Name and arguments of `<function=name><parameter=key>value</parameter>...</function>`; values get the types of `tools`."""
    function = _function(raw)
    name = function.attribute
    arguments: dict[str, Any] = {}
    for child in function.children:
        if child.name == "parameter":
            arguments[child.attribute] = trimmed(child.text, types_of(tools, name, child.attribute))
    return name, arguments


def _function(raw: str) -> Element:
    """The first element. Tags with a value become tags with a name, also those that are no tags of calls but text."""
    text = _VALUED.sub(lambda match: f'<{match[1]} name="{_escaped(match[2])}">', raw)
    root = parse(text, _TAG)
    if root.name != "function":
        raise CallError(f"expected element type <function> but have <{root.name}>")
    return root


def parse(text: str, tags: re.Pattern[str]) -> Element:
    """The first whole element in `text`, where only what matches `tags` is a tag. CallError when there is none."""
    stack: list[Element] = []
    at = 0
    for match in tags.finditer(text):
        _add_text(stack, text, at, match.start())
        at = match.end()
        element = _step(stack, match[0], text[:at])
        if element is not None and not stack:
            return element
    _add_text(stack, text, at, len(text))
    raise CallError(_syntax(text, "unexpected EOF") if stack else "EOF")


def contents(text: str, tags: re.Pattern[str], name: str) -> Element:
    """All of `text` as what stands in an element. CallError when a tag in it has no partner."""
    root = Element(name)
    stack = [root]
    at = 0
    for match in tags.finditer(text):
        _add_text(stack, text, at, match.start())
        at = match.end()
        _step(stack, match[0], text[:at])
    _add_text(stack, text, at, len(text))
    _closed(stack, name, text)
    return root


def _step(stack: list[Element], tag: str, before: str) -> Element | None:
    """Takes a tag; the element that it closes."""
    parts = _PARTS.fullmatch(tag)
    assert parts is not None
    if not parts[1]:
        stack.append(Element(parts[2], _unescaped(parts[3] or "")))
        return None
    element = _closed(stack, parts[2], before)
    if stack:
        stack[-1].children.append(element)
    return element


def _closed(stack: list[Element], name: str, before: str) -> Element:
    if not stack:
        raise CallError(_syntax(before, f"unexpected end element </{name}>"))
    if stack[-1].name != name:
        raise CallError(_syntax(before, f"element <{stack[-1].name}> closed by </{name}>"))
    return stack.pop()


def _add_text(stack: list[Element], text: str, start: int, end: int) -> None:
    part = text[start:end]
    if (illegal := _ILLEGAL.search(part)) is not None:
        raise CallError(_syntax(text[: start + illegal.start()], f"illegal character code U+{ord(illegal[0]):04X}"))
    if stack:
        stack[-1].text += part.replace("\r\n", "\n").replace("\r", "\n")


def _syntax(before: str, what: str) -> str:
    return f"XML syntax error on line {before.count(chr(10)) + 1}: {what}"


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(char, "\ufffd" if _ILLEGAL.match(char) else char) for char in text)


def _unescaped(text: str) -> str:
    for char, escape in _ESCAPES.items():
        text = text if char == "&" else text.replace(escape, char)
    return text.replace("&amp;", "&")
