"""What parsers of answers share: a machine that holds text back until its state knows what the text is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ollama_compat.output.events import Content, Event, ToolCall


class Machine:
    """A parser of content and tool calls, made of states.

    A state is a method that looks at `_held`, the text whose meaning is open, takes what it understands, and returns whether
    another state has something to do now. A subclass sets the first state and says in `_end` what becomes of the rest.
    """

    preserved: tuple[str, ...] = ()

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._state: Callable[[], bool] = self._pass
        self._held = ""
        self._events: list[Event] = []
        self._calls = 0

    def feed(self, text: str) -> list[Event]:
        """The events that `text`, the next piece of the answer, settles."""
        self._held += text
        while self._state():
            pass
        return self._take()

    def finish(self) -> list[Event]:
        """The events of what was held back; nothing is fed afterwards."""
        self._end()
        return self._take()

    def _end(self) -> None:
        """The answer is over: what is held is content unless a subclass knows better."""
        self._say(self._held)

    def _take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _say(self, text: str) -> None:
        if text:
            self._events.append(Content(text))

    def _call(self, name: str, arguments: dict[str, Any], id: str = "") -> None:
        self._events.append(ToolCall(name, arguments, self._calls, id or self._new_id()))
        self._calls += 1

    def _pass(self) -> bool:
        """The state in which everything is content."""
        self._say(self._held)
        self._held = ""
        return False


def overlap(text: str, tags: str | Iterable[str]) -> int:
    """Length of the longest end of `text` that is a beginning of one of `tags` (and not the whole of it)."""
    return max((_overlap(text, tag) for tag in ((tags,) if isinstance(tags, str) else tags)), default=0)


def _overlap(text: str, tag: str) -> int:
    lengths = range(min(len(text), len(tag) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(tag[:length])), 0)
