"""What a model's text turns into, and what turns it."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """More of the answer."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Thinking:
    """More of the reasoning before the answer."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class ToolCall:
    """One whole call of a tool. `arguments` can be written as JSON and keep the order in which the model wrote them."""

    name: str
    arguments: dict[str, Any]
    index: int  # among the calls of this answer, from 0
    id: str


class CallError(Exception):
    """A model wrote a call that cannot be read; the answer ends with this message."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


Event = Content | Thinking | ToolCall


@dataclasses.dataclass(frozen=True, slots=True)
class Reasoning:
    """How an answer marks the reasoning that it may begin with."""

    start: str
    end: str
    begun: bool  # by the prompt


class OutputParser(Protocol):
    """Splits one answer. Text that may yet turn out to be a tag is held back; no event ever carries part of a tag."""

    @property
    def preserved(self) -> tuple[str, ...]:
        """Special tokens that have to stay visible in the text that is fed."""

    @property
    def reasoning(self) -> Reasoning | None:
        """What is still to come of it before anything is fed; None: no reasoning."""

    def feed(self, text: str) -> list[Event]:
        """The events that `text`, the next piece of the answer, settles. May raise CallError, as `finish` may."""

    def finish(self) -> list[Event]:
        """The events of what was held back; nothing is fed afterwards."""


class Wrapper:
    """What a parser around another one has of that."""

    def __init__(self, parser: OutputParser) -> None:
        self._parser = parser

    @property
    def preserved(self) -> tuple[str, ...]:
        return self._parser.preserved

    @property
    def reasoning(self) -> Reasoning | None:
        return self._parser.reasoning
