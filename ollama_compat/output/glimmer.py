"""Glimmer: messages addressed to `self` (reasoning), `user` (content) or a tool, whose calls are XML with a prefix."""

from __future__ import annotations

import re
from typing import Any

from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.call_values import typed, types_of
from ollama_compat.output.events import CallError, Reasoning

_START, _MESSAGE, _ENDS = "<|start|>", "<|message|>", ("<|eom|>", "<|eot|>")
_ASSISTANT = f"{_START}assistant"
_SPACE = " \t\r\n"
_CALLS, _CALLS_END = "<atem:function_calls>", "</atem:function_calls>"
_INVOKE = re.compile(r'\s*<atem:invoke name="(.*?)(?:">|<\|message\|>(?=<atem:parameter name="))(.*)</atem:invoke>\s*', re.DOTALL)
_PARAMETER = re.compile(r'<atem:parameter name="(.*?)">(.*?)</atem:parameter>\n?', re.DOTALL)


class Glimmer(Blocks):
    """Parses one answer. Reasoning that is not wanted is dropped."""

    THINK = ("", "")
    CALL = ("", "")
    MARKS = _ENDS

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, thinks=False)
        self.preserved = (_START, _MESSAGE, *_ENDS)
        functions = (tool.get("function") or {} for tool in setup.tools)
        self._known = {name: function for function in functions if (name := (function.get("name") or "").strip())}
        self._shows_thoughts = setup.thinks(default=True)
        self._recipient = ""
        self._state = self._header
        if self._shows_thoughts:
            self.reasoning = Reasoning(f" to=self{_MESSAGE}", f" to=user{_MESSAGE}", begun=True)

    def _header(self) -> bool:
        """Before a message: whom it is for."""
        header, tag, rest = self._held.partition(_MESSAGE)
        if not tag:
            return False
        self._held = rest
        self._recipient = header.removeprefix(_ASSISTANT).strip().removeprefix("to=").strip()
        if self._resolved(self._recipient):
            return self._to(self._collect)
        return self._to(self._thought if self._recipient == "self" else self._first)

    def _thought(self) -> bool:
        return self._message_ends(self._reason)

    def _first(self) -> bool:
        """At the beginning of content, which may be a call in the wrong place."""
        body = self._held.lstrip(_SPACE)
        if self._known and body.startswith(_CALLS):
            return self._to(self._collect)
        return False if self._known and _CALLS.startswith(body) else self._to(self._text)

    def _text(self) -> bool:
        return self._message_ends(self._say)

    def _message_ends(self, say: Any) -> bool:
        tag = self._until((*_ENDS, _ASSISTANT), say, trim=False)
        return self._to(self._header) if tag else False

    def _collect(self) -> bool:
        """A message to a tool; marks inside of the call are its text."""
        start = self._held.find(_CALLS_END)
        places = [(at, tag) for tag in (*_ENDS, _ASSISTANT) if (at := self._held.find(tag, max(start, 0))) >= 0]
        if start < 0 or not places:
            return False
        at, tag = min(places)
        raw, self._held = self._held[:at], self._held[at + len(tag) :]
        self._finish_call(raw)
        return self._to(self._header)

    def _finish_call(self, raw: str) -> None:
        recipient = self._resolved(self._recipient)
        if recipient:
            return self._read_call(raw)
        found = self._parsed(raw)
        name = self._resolved(found[0]) if found else ""
        return self._call(name, found[1]) if found and name else self._say(raw)

    def _read_call(self, raw: str) -> None:
        found = self._parsed(raw)
        if found is None:
            raise CallError(f"parse Glimmer call to {self._recipient}: malformed ATEM call")
        if self._resolved(found[0]) != self._resolved(self._recipient):
            raise CallError(f'Glimmer recipient "{self._recipient}" does not match ATEM invoke "{found[0]}"')
        self._call(self._resolved(self._recipient), found[1])

    def _parsed(self, raw: str) -> tuple[str, dict[str, Any]] | None:
        """The name that is invoked, and arguments with the types of its tool."""
        body = raw.strip()
        if not (body.startswith(_CALLS) and body.endswith(_CALLS_END)):
            return None
        inside = body[len(_CALLS) : -len(_CALLS_END)].strip()
        invoke = _INVOKE.fullmatch(inside) if inside.endswith("</atem:invoke>") else None
        if invoke is None:
            return None
        name, rest = invoke[1].replace(_MESSAGE, ""), invoke[2].removeprefix("\n").removesuffix("\n")
        arguments: dict[str, Any] = {}
        while rest:
            parameter = _PARAMETER.match(rest)
            if parameter is None:
                return None
            arguments[parameter[1]] = typed(parameter[2], types_of(self.tools, self._resolved(name), parameter[1]))
            rest = rest[parameter.end() :]
        return name, arguments

    def _resolved(self, name: str) -> str:
        """The declared tool that a name means: itself, or without a namespace that is its own; "" for none."""
        if name in self._known:
            return name
        space, _, function = name.partition(".")
        return function if function in self._known and space == function.partition(".")[0] else ""

    def _reason(self, text: str) -> None:
        if self._shows_thoughts:
            super()._reason(text)

    def _end(self) -> None:
        if self._state == self._thought:
            self._reason(self._rest())
        elif self._state == self._collect:
            self._finish_call(self._held)
        else:
            self._say(self._rest())


def make(setup: Setup) -> Glimmer:
    """The parser; the models reason unless they are told not to."""
    return Glimmer(setup)
