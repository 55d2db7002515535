"""Gemma 4: `<|tool_call>call:name{key:<|"|>value<|"|>}<tool_call|>`, reasoning in `<|channel>thought` ... `<channel|>`."""

from __future__ import annotations

from ollama_compat.gospace import SPACE
from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.events import Reasoning
from ollama_compat.output.gemma4_arguments import QUOTE, arguments

_CALL, _CALL_END = "<|tool_call>", "<tool_call|>"
_RESPONSE = "<|tool_response>"
_NAME = "thought\n"


class Gemma4(Blocks):
    """Parses one answer. Reasoning that nobody asked for is dropped, and so are calls that cannot be read."""

    THINK = ("<|channel>", "<channel|>")
    CALL = (_CALL, _CALL_END)
    CALL_ENDS_THINKING = False
    KEEPS_END = True

    def __init__(self, setup: Setup, thinks: bool) -> None:
        super().__init__(setup, thinks=False)
        self.preserved = (*self.THINK, *self.CALL, _RESPONSE, QUOTE)
        self._shows_thoughts = thinks
        if thinks and not setup.prefilled:
            begun = setup.last is not None and setup.last["role"] == "tool"
            self.reasoning = Reasoning(*self.THINK, begun=begun)
            self._state = self._think if begun else self._content

    # The states.

    def _content(self) -> bool:
        tag = self._until((self.THINK[0], _CALL), self._say)
        return self._to(self._collect if tag == _CALL else self._channel) if tag else False

    def _channel(self) -> bool:
        """At the name of a channel, which is dropped when it is the one for reasoning."""
        if _NAME.startswith(self._held) and self._held != _NAME:
            return False
        self._held = self._held.removeprefix(_NAME)
        return self._to(self._think)

    def _collect(self) -> bool:
        raw, tag, rest = self._held.partition(_CALL_END)
        if not tag:
            return False
        self._held = rest
        self._take_call(raw)
        return self._to(self._after_call)

    def _after_call(self) -> bool:
        """Behind a call, where models sometimes write further marks."""
        self._held = self._held.lstrip(SPACE)
        for tag in (_CALL_END, _RESPONSE):
            if self._held.startswith(tag):
                self._held = self._held[len(tag) :]
                return True
            if tag.startswith(self._held):
                return False
        return self._to(self._content)

    # The parts.

    def _reason(self, text: str) -> None:
        if self._shows_thoughts:
            super()._reason(text)

    def _read_call(self, raw: str) -> None:
        name, brace, rest = raw.removeprefix("call:").partition("{")
        name = name.strip(SPACE)
        found = arguments(brace + rest, name, self.tools) if raw.startswith("call:") and brace else None
        if found is not None:
            self._call(name, found)

    def _cut_off(self) -> None:
        """A stop string may come before the closing tag."""
        self._read_call(self._held)

    def _end(self) -> None:
        if self._state == self._channel:
            self._reason(self._held)
        else:
            super()._end()


def make(setup: Setup) -> Gemma4:
    """The parser; the models reason only when they are asked to."""
    return Gemma4(setup, thinks=setup.thinks())


def no_thinking(setup: Setup) -> Gemma4:
    """The parser of models that do not reason."""
    return Gemma4(setup, thinks=False)
