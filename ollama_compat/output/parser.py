"""An output parser made of its two halves: reasoning first, then tool calls in what is left."""

from __future__ import annotations

from typing import Protocol

from ollama_compat.output.events import Content, Event, Reasoning, Thinking
from ollama_compat.output.thinking import ThinkingSplitter


class CallParser(Protocol):
    """Splits tool calls from content; an OutputParser without reasoning."""

    @property
    def preserved(self) -> tuple[str, ...]: ...
    def feed(self, text: str) -> list[Event]: ...
    def finish(self) -> list[Event]: ...


class Parser:
    """Both halves are optional; without them everything is content."""

    def __init__(
        self, thinking: ThinkingSplitter | None = None, calls: CallParser | None = None, preserved: tuple[str, ...] = ()
    ) -> None:
        self._thinking = thinking
        self._calls = calls
        self.preserved = preserved + (calls.preserved if calls else ())

    @property
    def json_tags(self) -> tuple[str, str] | None:
        """What stands around a call, where a call is one JSON object with a name and arguments between tags."""
        tags: tuple[str, str] | None = getattr(self._calls, "json_tags", None)
        return tags

    @property
    def reasoning(self) -> Reasoning | None:
        return None if self._thinking is None else self._thinking.reasoning

    def feed(self, text: str) -> list[Event]:
        thinking, answer = ("", text) if self._thinking is None else self._thinking.feed(text)
        return self._events(thinking, answer)

    def finish(self) -> list[Event]:
        thinking, answer = ("", "") if self._thinking is None else self._thinking.finish()
        return self._events(thinking, answer) + (self._calls.finish() if self._calls else [])

    def _events(self, thinking: str, answer: str) -> list[Event]:
        events: list[Event] = [Thinking(thinking)] if thinking else []
        if self._calls is not None:
            return events + self._calls.feed(answer)
        return events + ([Content(answer)] if answer else [])
