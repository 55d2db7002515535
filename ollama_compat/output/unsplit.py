"""Answers whose reasoning stays in the text."""

from __future__ import annotations

from ollama_compat.output.events import Content, Event, Wrapper


class Unsplit(Wrapper):
    """Passes the text on as the model writes it, its tags included. `parser` would have split it."""

    def feed(self, text: str) -> list[Event]:
        return [Content(text)]

    def finish(self) -> list[Event]:
        return []
