"""Answers whose reasoning stays in the text."""

from __future__ import annotations

from ollama_compat.output.events import Content, Event, OutputParser, Reasoning


class Unsplit:
    """Passes the text on as the model writes it, its tags included. `parser` would have split it."""

    def __init__(self, parser: OutputParser) -> None:
        self._parser = parser

    @property
    def preserved(self) -> tuple[str, ...]:
        return self._parser.preserved

    @property
    def reasoning(self) -> Reasoning | None:
        return self._parser.reasoning

    def feed(self, text: str) -> list[Event]:
        return [Content(text)]

    def finish(self) -> list[Event]:
        return []
