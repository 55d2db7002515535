"""The names of the tools that were offered, for calls whose names differ from them in case alone.

llama-server lets a model behind a call's tag write no other name than an offered one, so that `bash` becomes `Bash`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ollama_compat.output.events import Event, OutputParser, ToolCall, Wrapper


def meant(name: str, names: Sequence[str]) -> str | None:
    """The one of the names that is written so, or else the only one that differs in case alone."""
    if name in names:
        return name
    found = {other for other in names if other.casefold() == name.casefold()}
    return found.pop() if len(found) == 1 else None


class Offered(Wrapper):
    """A parser whose calls have the names that were offered, where they can be told; others stay as they are."""

    def __init__(self, parser: OutputParser, names: Sequence[str]) -> None:
        super().__init__(parser)
        self._names = names

    def feed(self, text: str) -> list[Event]:
        return [self._named(event) for event in self._parser.feed(text)]

    def finish(self) -> list[Event]:
        return [self._named(event) for event in self._parser.finish()]

    def _named(self, event: Event) -> Event:
        if not isinstance(event, ToolCall):
            return event
        return dataclasses.replace(event, name=meant(event.name, self._names) or event.name)
