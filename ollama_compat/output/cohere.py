"""Command A and North by Cohere: blocks of thinking, text, and actions, which are lists of calls."""

from __future__ import annotations

import json
from typing import Any

from ollama_compat.gospace import SPACE
from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.events import CallError
from ollama_compat.output.tool_json import Scanner, call_members, load_object

_TEXTS = ("<|START_TEXT|>", "<|START_RESPONSE|>")
_ENDS = ("<|END_TEXT|>", "<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>")
_ACTION, _ACTION_END = "<|START_ACTION|>", "<|END_ACTION|>"
_THINKING, _THINKING_END = "<|START_THINKING|>", "<|END_THINKING|>"
_MARKS = (*_TEXTS, *_ENDS, _ACTION, _THINKING_END)


class Cohere(Blocks):
    """Parses one answer. Calls that cannot be read are left out."""

    THINK = (_THINKING, _THINKING_END)
    CALL = (_ACTION, _ACTION_END)
    MARKS = _MARKS
    CALL_ENDS_THINKING = False
    LEADS = False

    def __init__(self, setup: Setup) -> None:
        thinks = setup.thinks(default=True) and not setup.prefilled
        super().__init__(setup, thinks)
        self.preserved = (*self.THINK, _TEXTS[0], _ENDS[0], *self.CALL, _TEXTS[1], _ENDS[1])
        if not thinks:
            self._state = self._text if setup.prefilled else self._between

    def _content(self) -> bool:
        return self._to(self._between)

    def _between(self) -> bool:
        """Between two blocks. What is no block is content all the same."""
        body = self._held = self._held.lstrip(SPACE)
        for tag in _MARKS:
            if body.startswith(tag):
                self._held = body[len(tag) :]
                return self._after(tag)
            if tag.startswith(body):
                return False
        return self._to(self._text)

    def _text(self) -> bool:
        tag = self._until(_MARKS, self._say, trim=False)
        return self._after(tag) if tag else False

    def _after(self, tag: str) -> bool:
        return self._to(self._collect if tag == _ACTION else self._text if tag in _TEXTS else self._between)

    def _read_call(self, raw: str) -> None:
        for value in _actions(raw.strip(SPACE)):
            try:
                self._call(*call_members(value, "tool_name", "parameters"))
            except CallError:
                continue

    def _cut_off(self) -> None:
        self._read_call(self._held)

    def _end(self) -> None:
        if self._state in (self._text, self._between):
            self._say(self._rest())
        else:
            super()._end()


def make(setup: Setup) -> Cohere:
    """The parser; the models reason unless they are told not to."""
    return Cohere(setup)


def _actions(text: str) -> list[dict[str, Any]]:
    """The objects of a list; where it is none as a whole, each object that can be read by itself."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list):
        return [value for value in found if isinstance(value, dict)]
    objects, scanner = [], Scanner("{}")
    while (end := scanner.scan(text)) >= 0:
        value = load_object(text[scanner.start : end])
        objects += [value] if value is not None else []
        text, scanner = text[end:], Scanner("{}")
    return objects
