"""Splits reasoning from the answer that follows it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from ollama_compat.output.events import Reasoning
from ollama_compat.output.machine import overlap


@dataclasses.dataclass(frozen=True, slots=True)
class Tags:
    """How an answer marks its reasoning, and which white space belongs to the marks."""

    start: str
    end: str
    breaks_after_start: int | None = None  # line breaks swallowed at most; None: all white space
    breaks_after_end: int | None = None
    strip_answer: bool = False  # an answer without reasoning loses its leading white space


class ThinkingSplitter:
    """Gives the reasoning and the answer of text fed to it; reasoning can only stand at the beginning.

    Reasoning of nothing but white space is none. A missing end tag makes everything reasoning.
    """

    def __init__(self, tags: Tags) -> None:
        self._tags = tags
        self._state: Callable[[], bool] = self._look
        self._held = ""
        self._thinking = ""
        self._answer = ""
        self._blank: str | None = ""  # reasoning so far, while it is white space
        self._breaks: int | None = None

    def start_after(self, prompt: str) -> None:
        """Begins where `prompt` ends: inside of the reasoning, or after it, when a tag is the last thing in it."""
        body = prompt.rstrip()
        space = prompt[len(body) :]
        if body.endswith(self._tags.start):
            self.feed(self._tags.start + space)
        elif body.endswith(self._tags.end):
            self.feed(self._tags.start + self._tags.end + space)

    @property
    def reasoning(self) -> Reasoning | None:
        """The tags, until the reasoning has ended."""
        if self._state in (self._close, self._pass):
            return None
        return Reasoning(self._tags.start, self._tags.end, begun=self._state != self._look)

    def feed(self, text: str) -> tuple[str, str]:
        """New reasoning and new answer."""
        self._held += text
        while self._state():
            pass
        return self._take()

    def finish(self) -> tuple[str, str]:
        """What was held back."""
        if self._state == self._think:
            self._add_thinking(self._held)
        elif self._state == self._look:
            self._answer += self._held.lstrip() if self._tags.strip_answer else self._held
        return self._take()

    def _take(self) -> tuple[str, str]:
        taken = self._thinking, self._answer
        self._thinking = self._answer = ""
        return taken

    # The states. Each looks at what is held, and returns whether another one has something to do now.

    def _look(self) -> bool:
        body = self._held.lstrip()
        if body.startswith(self._tags.start):
            self._held = body[len(self._tags.start) :]
            self._breaks = self._tags.breaks_after_start
            self._state = self._open
            return True
        if self._tags.start.startswith(body):
            return False
        self._held = body if self._tags.strip_answer else self._held
        self._state = self._pass
        return True

    def _open(self) -> bool:
        return self._swallow(self._think)

    def _think(self) -> bool:
        reasoning, tag, rest = self._held.partition(self._tags.end)
        if tag:
            self._add_thinking(reasoning)
            self._held = rest
            self._breaks = self._tags.breaks_after_end
            self._state = self._close
            return True
        settled = len(self._held) - overlap(self._held, self._tags.end)
        self._add_thinking(self._held[:settled])
        self._held = self._held[settled:]
        return False

    def _close(self) -> bool:
        return self._swallow(self._pass)

    def _pass(self) -> bool:
        self._answer += self._held
        self._held = ""
        return False

    def _swallow(self, state: Callable[[], bool]) -> bool:
        """Drops white space; on to `state` with the first character that is to stay."""
        if self._breaks is None:
            self._held = self._held.lstrip()
        else:
            rest = self._held.lstrip("\n")
            dropped = min(len(self._held) - len(rest), self._breaks)
            self._breaks -= dropped
            self._held = self._held[dropped:]
        if not self._held and self._breaks != 0:
            return False
        self._state = state
        return True

    def _add_thinking(self, text: str) -> None:
        if self._blank is None:
            self._thinking += text
        elif (self._blank + text).isspace() or not text:
            self._blank += text
        else:
            self._thinking += self._blank + text
            self._blank = None


def tags_of_jinja(source: str) -> Tags | None:
    """The tags by which the Jinja template `source` writes reasoning; None when it knows of none.

    A rule that gives what llama.cpp finds by comparing prompts rendered with and without reasoning: line breaks that the
    template writes behind a tag belong to it, except in templates that only cut reasoning out of old messages.
    """
    if "</think>" not in source:
        return None
    writes = "reasoning_content" in source
    after_start = _line_breaks_after("<think>", source) if writes else 0
    after_end = _line_breaks_after("</think>", source) if writes else 0
    return Tags("<think>", "</think>", after_start, after_end, strip_answer=True)


def _line_breaks_after(tag: str, source: str) -> int:
    """Line breaks, as characters or as escapes, that follow `tag` in `source` at most; not those of empty reasoning."""
    runs = re.findall(re.escape(tag) + r"((?>(?:\\n|\n)*))(?!</think>)", source)
    return max((run.count("n") + run.count("\n") for run in runs), default=0)
