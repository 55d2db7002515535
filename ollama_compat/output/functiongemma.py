"""FunctionGemma: `<start_function_call>call:name{key:<escape>value<escape>}<end_function_call>`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.python_calls import number

_CALL = re.compile(r"call:([^{]+)\{(.*)\}")
_ESCAPE = "<escape>"
_TOKEN = re.compile(r"<escape>|[\[\]{},]")


class FunctionGemma(Blocks):
    """Parses one answer. What is no call between the tags is left out (Ollama makes it a call without a name)."""

    THINK = ("", "")
    CALL = ("<start_function_call>", "<end_function_call>")
    TRIMS = False

    def _read_call(self, raw: str) -> None:
        if (found := _CALL.search(raw)) is not None:
            try:
                arguments = dict(_pairs(found[2]))
            except RecursionError:
                return
            self._call(found[1], arguments)


def make(setup: Setup) -> FunctionGemma:
    """The parser; the models do not reason."""
    return FunctionGemma(setup, thinks=False)


def _pairs(text: str) -> Iterator[tuple[str, Any]]:
    for part in _parts(text):
        key, colon, value = part.partition(":")
        if colon:
            yield key, _value(value)


def _parts(text: str) -> Iterator[str]:
    """Cut at the commas that stand in no brackets and no strings; what is empty is left out."""
    depth, start, escaped = 0, 0, False
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == _ESCAPE:
            escaped = not escaped
        elif not escaped and token == "," and depth == 0:
            yield from [text[start : match.start()]] if match.start() > start else []
            start = match.end()
        elif not escaped:
            depth += (token in "[{") - (token in "]}")
    yield from [text[start:]] if start < len(text) else []


def _value(text: str) -> Any:
    if text.startswith(_ESCAPE) and text.endswith(_ESCAPE) and len(text) >= 2 * len(_ESCAPE):
        return text[len(_ESCAPE) : -len(_ESCAPE)]
    if text in ("true", "false"):
        return text == "true"
    if (found := number(text)) is not None:
        return found
    if text.startswith("[") and text.endswith("]"):
        return [_value(part) for part in _parts(text[1:-1])]
    if text.startswith("{") and text.endswith("}"):
        return dict(_pairs(text[1:-1]))
    return text
