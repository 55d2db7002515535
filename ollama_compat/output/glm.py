"""GLM: `<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat.gospace import SPACE
from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.call_values import trimmed, types_of
from ollama_compat.output.events import CallError
from ollama_compat.output.glm_repair import KEY, KEY_END, VALUE, VALUE_END, repaired
from ollama_compat.output.machine import overlap
from ollama_compat.output.xml_calls import Element, contents

_TAGS = re.compile("</?(?:arg_key|arg_value)>")


class GLM(Blocks):
    """Parses one answer; values of arguments get the types that the tools' schemas give them."""

    LEADS = False
    CALL_ENDS_THINKING = False

    def __init__(self, setup: Setup, thinks: bool) -> None:
        super().__init__(setup, thinks)
        self.preserved = (*self.THINK, *self.CALL, KEY, KEY_END, VALUE, VALUE_END)

    def _read_call(self, raw: str) -> None:
        raw = raw.strip(SPACE)
        try:
            parsed = _element(raw)
        except CallError as error:
            parsed = _repaired_element(raw, error)
        self._call(*_call(parsed, self.tools))

    def _cut_off(self) -> None:
        """Only the closing tag may be missing: a repaired argument could make a call do what nobody wanted."""
        raw = self._held.lstrip(SPACE)
        if length := overlap(raw, self.CALL[1]):
            raw = raw[:-length].rstrip(SPACE)
        try:
            _check_whole(_element(raw), self.tools)
        except CallError as error:
            raise CallError(f"incomplete GLM tool call: {error.message}") from None
        self._read_call(raw)


class LookingGLM(GLM):
    """Parses one answer that may begin with reasoning."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, thinks=False)
        self._state = self._look


def glm_4_7(setup: Setup) -> GLM:
    """The parser of GLM-4.7, which reasons unless it is told not to."""
    return GLM(setup, thinks=True) if setup.thinks(default=True) else LookingGLM(setup)


def glm_ocr(setup: Setup) -> GLM:
    """The parser of GLM-OCR."""
    return LookingGLM(setup)


def _element(raw: str) -> Element:
    return contents(raw, _TAGS, "tool_call")


def _repaired_element(raw: str, error: CallError) -> Element:
    try:
        return _element(repaired(raw))
    except CallError:
        raise CallError(f"failed to parse XML: {error.message}") from None


def _call(parsed: Element, tools: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    name, keys, values = _checked(parsed)
    pairs = zip((key.strip(SPACE) for key in keys), values, strict=True)
    return name, {key: trimmed(value, types_of(tools, name, key)) for key, value in pairs}


def _checked(parsed: Element) -> tuple[str, list[str], list[str]]:
    """Name, keys and values."""
    name = parsed.text.strip(SPACE)
    if not name:
        raise CallError("empty function name")
    keys = [child.text for child in parsed.children if child.name == "arg_key"]
    values = [child.text for child in parsed.children if child.name == "arg_value"]
    if len(keys) != len(values):
        raise CallError(f"mismatched arg_key and arg_value counts: {len(keys)} keys, {len(values)} values")
    return name, keys, values


def _check_whole(parsed: Element, tools: Sequence[Mapping[str, Any]]) -> None:
    name, keys, _ = _checked(parsed)
    functions = (tool.get("function") or {} for tool in tools)
    declared = next((function for function in functions if function.get("name") == name), None)
    if declared is None:
        raise CallError(f'tool "{name}" is not declared')
    seen = {key.strip(SPACE) for key in keys}
    if "" in seen:
        raise CallError("empty argument name")
    for required in (declared.get("parameters") or {}).get("required") or ():
        if required not in seen:
            raise CallError(f'required argument "{required}" is missing for tool "{name}"')
