"""LFM2: `<|tool_call_start|>[name(key='value')]<|tool_call_end|>`, also without the tags; reasoning where the model likes."""

from __future__ import annotations

import dataclasses

from ollama_compat.gospace import SPACE
from ollama_compat.output import python_calls
from ollama_compat.output.blocks import Blocks, Setup


class LFM2(Blocks):
    """Parses one answer. Calls that cannot be read are left out."""

    CALL = ("<|tool_call_start|>", "<|tool_call_end|>")
    CALL_ENDS_THINKING = False
    KEEPS_END = True

    def __init__(self, setup: Setup, thinks: bool) -> None:
        super().__init__(dataclasses.replace(setup, prompt=""), thinks)
        functions = (tool.get("function") or {} for tool in setup.tools)
        self._bare = tuple(f"{function['name']}(" for function in functions if function.get("name"))
        if self._bare and not thinks:
            self._state = self._first

    def _look(self) -> bool:
        body = self._held.lstrip(SPACE)
        if body and not body.startswith(self.THINK[0]) and not self.THINK[0].startswith(body):
            self._held = body  # a direct answer
            return self._to(self._first if self._bare else self._content)
        return super()._look()

    def _first(self) -> bool:
        """At the beginning of content that may be calls without tags, which only the answer's end can show."""
        body = self._held.lstrip(SPACE).removeprefix("[").lstrip(SPACE)
        if any(body.startswith(name) for name in self._bare):
            return False
        if any(name.startswith(body) for name in self._bare):
            return False
        return self._to(self._content)

    def _read_call(self, raw: str) -> None:
        for call in _calls(raw):
            self._call(*call)

    def _end(self) -> None:
        if self._state != self._first:
            return super()._end()
        calls = [] if self.CALL[0] in self._held else _calls(self._held)
        if calls and all(f"{name}(" in self._bare for name, _ in calls):
            for call in calls:
                self._call(*call)
            return None
        self._state = self._content
        while self._state():
            pass
        return super()._end()


def instruct(setup: Setup) -> LFM2:
    """For the models that answer at once."""
    return LFM2(setup, thinks=False)


def thinking(setup: Setup) -> LFM2:
    """For the models that may reason, when they are asked to."""
    return LFM2(setup, thinks=setup.thinks() and not setup.prefilled)


def _calls(raw: str) -> list[tuple[str, dict[str, object]]]:
    text = raw.strip(SPACE).removeprefix(LFM2.CALL[0]).strip(SPACE).removesuffix(LFM2.CALL[1])
    try:
        return python_calls.calls(text)
    except python_calls.NoCall:
        return []
