"""Laguna: GLM's tags around arguments, or JSON, in `<tool_call>`; JSON without the tags, and a few misspelt forms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat.gospace import SPACE
from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.call_values import trimmed, types_of
from ollama_compat.output.events import CallError
from ollama_compat.output.tool_json import Scanner, call_members, read_object

_KEYS = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
_USER, _USER_END = "<user>", "</user>"
_ARGUMENT = re.compile(r"<arg_key>((?:(?!</?arg_key>).)*)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_ALIASES = {"read_file": "read", "write_file": "write", "edit_file": "edit", "web_fetch": "webfetch"}
_JSON_KEYS = ('"name"', '"arguments"')


class Laguna(Blocks):
    """Parses one answer. Reasoning that nobody asked for is dropped."""

    def __init__(self, setup: Setup, thinks: bool, prefilled: bool) -> None:
        super().__init__(setup, thinks and not prefilled)
        self.preserved = (*self.THINK, *self.CALL, _USER, _USER_END, *_KEYS)
        self._shows_thoughts = thinks
        self._scanner = Scanner("{}")
        if self.reasoning is None:
            self._skip_to(self._content)

    def _reason(self, text: str) -> None:
        if self._shows_thoughts:
            super()._reason(text)

    def _lead(self) -> bool:
        self._held = self._held.lstrip(SPACE)
        return super()._lead()

    def _content(self) -> bool:
        json_or_user = ("{", _USER) if self.tools else ()
        tag = self._until((*self.THINK, self.CALL[0], *json_or_user), self._say)
        if not tag:
            return False
        if tag in ("{", _USER):
            self._held = tag + self._held
            self._scanner = Scanner("{}")
            return self._to(self._json if tag == "{" else self._user)
        states = {self.THINK[0]: self._think, self.THINK[1]: self._content, self.CALL[0]: self._collect}
        return self._to(states[tag]) if tag == self.CALL[0] else self._skip_to(states[tag])

    def _json(self) -> bool:
        """At an object that may be a call."""
        body = self._held[1:].lstrip(SPACE)
        if not any(body.startswith(key) or key.startswith(body) for key in _JSON_KEYS):
            return self._content_after_all(1)
        end = self._scanner.scan(self._held)
        if end < 0:
            return False
        raw = self._held[:end]
        if not any(key in raw for key in _JSON_KEYS):
            return self._content_after_all(end)
        self._held = self._held[end:]
        self._take_call(raw)
        return self._skip_to(self._content)

    def _user(self) -> bool:
        """At a call between the wrong tags."""
        raw, tag, rest = self._held[len(_USER) :].partition(_USER_END)
        if not tag:
            return False
        if _resolved(_name(_cleaned(raw)), self.tools) is None:
            return self._content_after_all(len(_USER))
        self._held = rest
        self._take_call(raw)
        return self._skip_to(self._content)

    def _content_after_all(self, length: int) -> bool:
        self._say(self._held[:length])
        self._held = self._held[length:]
        return self._to(self._content)

    def _read_call(self, raw: str) -> None:
        raw = _cleaned(raw)
        if not raw.startswith("{"):
            return self._call(*_call(raw, self.tools))
        try:
            name, arguments = call_members(read_object(raw), "name", "arguments")
        except CallError as error:
            raise CallError(f"failed to parse Laguna JSON tool call: {error.message}") from None
        if not name:
            raise CallError("empty Laguna tool call name")
        return self._call(_resolved(name, self.tools) or name, arguments)

    def _cut_off(self) -> None:
        if self._held.strip(SPACE):
            self._read_call(self._held)

    def _end(self) -> None:
        if self._state in (self._json, self._user):
            self._say(self._held.rstrip(SPACE))
        else:
            super()._end()


def laguna(setup: Setup) -> Laguna:
    """The parser of the first version, which goes on with what the assistant said last."""
    prefilled = setup.last is not None and setup.last["role"] == "assistant"
    return Laguna(setup, setup.thinks(), prefilled)


def poolside_v1(setup: Setup) -> Laguna:
    """The parser of the later version, which begins a new message."""
    return Laguna(setup, setup.thinks(), prefilled=False)


def _resolved(name: str, tools: Sequence[Mapping[str, Any]]) -> str | None:
    """The tool that is meant by a name; None: no tool of the request."""
    known = {(tool.get("function") or {}).get("name") for tool in tools}
    return next((each for each in (name, _ALIASES.get(name)) if each in known), None)


def _cleaned(raw: str) -> str:
    """Without opening tags that were written twice."""
    opening, closing = Laguna.CALL
    raw = raw.strip(SPACE)
    while raw.startswith(opening):
        raw = raw.removeprefix(opening).strip(SPACE)
    raw = raw.partition(closing)[0].strip(SPACE)
    before, tag, _ = raw.partition(opening)
    return before.strip(SPACE) if tag else raw


def _name(raw: str) -> str:
    if raw.startswith("{"):
        try:
            return call_members(read_object(raw), "name", "arguments")[0].strip(SPACE)
        except CallError:
            return ""
    for end in ("<arg_key>", "{"):
        if end in raw:
            return raw.partition(end)[0].strip(SPACE)
    return re.split(r"[\r\n]", raw, maxsplit=1)[0].strip(SPACE)


def _call(raw: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    at = next((at for end in ("<arg_key>", "{") if (at := raw.find(end)) >= 0), len(raw))
    name, text = raw[:at].strip(SPACE), raw[at:].strip(SPACE)
    name = _resolved(name, tools) or name
    if text.startswith("{"):
        try:
            return name, read_object(text)
        except CallError as error:
            raise CallError(f"failed to parse Laguna JSON tool call arguments: {error.message}") from None
    pairs = ((match[1].strip(SPACE), match[2]) for match in _ARGUMENT.finditer(text))
    return name, {key: trimmed(value, types_of(tools, name, key)) for key, value in pairs}
