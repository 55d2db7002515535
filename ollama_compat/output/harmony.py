"""Harmony, the form of gpt-oss: messages with a header that names their channel and whom they are for.

`<|channel|>analysis` is reasoning, `final` and `commentary` are content, and what goes `to=functions.name` is a call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat.gospace import SPACE
from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.events import CallError, Reasoning
from ollama_compat.output.tool_json import read_object

_START, _MESSAGE, _END, _CHANNEL = "<|start|>", "<|message|>", "<|end|>", "<|channel|>"
_CONSTRAIN = "<|constrain|>"
_BUILT_IN = ("browser.open", "browser.search", "browser.find", "python")


@dataclasses.dataclass(frozen=True, slots=True)
class _Header:
    channel: str
    recipient: str


class Harmony(Blocks):
    """Parses one answer. There is one call in it at most, at its end."""

    THINK = ("", "")
    CALL = ("", _END)

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, thinks=False)
        self.preserved = (_START, _END, _MESSAGE, _CHANNEL, _CONSTRAIN)
        self._names = {shown: own for own, shown in shown_names(setup.tools).items()}
        self._recipient = ""
        self._arguments = ""
        self._is_thought = False
        self._state = self._header
        opened = setup.last if setup.last and setup.last["role"] == "assistant" else {}
        prompt = setup.prompt or ""
        if opened.get("content") or prompt.endswith(_MESSAGE):
            self._is_thought, self._state = prompt.endswith(f"analysis{_MESSAGE}"), self._text
        elif opened.get("thinking"):
            self._is_thought, self._state = True, self._text
        if self._state == self._header or self._is_thought:
            final = f"{_CHANNEL}final{_MESSAGE}"
            self.reasoning = Reasoning(f"{_CHANNEL}analysis{_MESSAGE}", final, begun=True)

    # The states.

    def _between(self) -> bool:
        """Before a message; what stands there is dropped."""
        _, tag, rest = self._held.partition(_START)
        if not tag:
            return False
        self._held = rest
        return self._to(self._header)

    def _header(self) -> bool:
        text, tag, rest = self._held.partition(_MESSAGE)
        if not tag:
            return False
        self._held = rest
        header = _read(text)
        if header.channel in ("analysis", "commentary") and header.recipient:
            self._recipient = header.recipient
            return self._to(self._collect)
        self._is_thought = header.channel == "analysis"
        return self._to(self._text)

    def _text(self) -> bool:
        if self._until((_END,), self._reason if self._is_thought else self._say, trim=False):
            self._is_thought = False
            return self._to(self._between)
        return False

    def _collect(self) -> bool:
        """Arguments of a call; a later message to a tool goes on with them, as in Ollama."""
        if self._until((_END,), self._add_arguments, trim=False):
            return self._to(self._between)
        return False

    def _add_arguments(self, text: str) -> None:
        self._arguments += text

    def _end(self) -> None:
        if self._state == self._text:
            (self._reason if self._is_thought else self._say)(self._rest())
        elif self._state == self._collect:
            self._arguments += self._held
        if self._recipient:
            self._take_call(self._arguments)

    def _written(self, raw: str) -> str:
        return raw

    def _read_call(self, raw: str) -> None:
        name = self._recipient.removeprefix("functions.")
        self._call(self._names.get(name, name), _arguments(raw))


def make(setup: Setup) -> Harmony:
    """The parser; the models reason always."""
    return Harmony(setup)


def _arguments(raw: str) -> dict[str, Any]:
    try:
        return read_object(raw)
    except CallError as error:
        raise CallError(f"error parsing tool call: raw='{raw}', err={error.message}") from None


def _read(text: str) -> _Header:
    """What a header says. The recipient may stand before the channel or behind it."""
    text = text.replace(_CONSTRAIN, f" {_CONSTRAIN}", 1)
    before, tag, after = text.partition(_CHANNEL)
    name = next(iter(after.split()), "") if tag and after[:1].strip(SPACE) else ""
    words = (before + after[len(name) :]).split()
    role = words[0] if words else ""
    if role.startswith("to="):
        return _Header(name, role[3:])
    return _Header(name, words[1][3:] if len(words) > 1 and words[1].startswith("to=") else "")


# ---------------------------------------------------------------- names of tools


def shown_names(tools: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The names by which the model knows the tools: identifiers of TypeScript, each once."""
    shown: dict[str, str] = {}
    for tool in tools:
        name = (tool.get("function") or {}).get("name")
        if name:
            shown[name] = name if name in _BUILT_IN else _unique(_identifier(name), set(shown.values()))
    return shown


def renamed(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tools under the names by which the model knows them."""
    names, found = shown_names(tools), []
    for tool in tools:
        function = tool.get("function") or {}
        name = names.get(function.get("name", ""), function.get("name", ""))
        found.append({**tool, "function": {**function, "name": name}})
    return found


def _identifier(name: str) -> str:
    kept = "".join("_" if char in " -." else char for char in name if char in " -._$" or char.isalpha() or char.isdecimal())
    if not kept:
        return "unnamed"
    return f"_{kept}" if kept[0].isdecimal() else kept


def _unique(name: str, taken: set[str]) -> str:
    count, found = 1, name
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found
