"""What Ollama's built-in parsers share: an answer as blocks of reasoning, content and calls between tags.

Ollama's own parsers differ with the places where an answer is cut into pieces, because white space or the beginning of a tag
may already be sent when the tag comes. Here the result is that of the whole answer: what may belong to a tag is held back.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from ollama_compat.gospace import SPACE
from ollama_compat.output.events import CallError, Reasoning, Thinking
from ollama_compat.output.machine import Machine, overlap
from ollama_compat.output.tool_json import ollama_id


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """What a built-in parser is told about the answer that it will read."""

    tools: Sequence[Mapping[str, Any]] = ()
    think: bool | str | None = None
    last: Mapping[str, Any] | None = None  # message of the conversation
    prompt: str | None = None  # or its end, where a template made it that may not know what the parser expects
    lenient: bool = False  # a call that cannot be read is content, not an error

    @property
    def prefilled(self) -> bool:
        """Whether the answer goes on with content that stands in the prompt."""
        return self.last is not None and self.last["role"] == "assistant" and bool(self.last.get("content"))

    def thinks(self, default: bool = False) -> bool:
        """Whether reasoning is asked for."""
        return default if self.think is None else bool(self.think)


class Blocks(Machine):
    """Reasoning, then content with calls in it. Subclasses say by which tags, and what a call looks like in `_read_call`."""

    THINK: ClassVar[tuple[str, str]] = ("<think>", "</think>")
    CALL: ClassVar[tuple[str, str]] = ("<tool_call>", "</tool_call>")
    PRESERVED: ClassVar[tuple[str, ...]] = ()  # by default all of these
    MARKS: ClassVar[tuple[str, ...]] = ()  # further tags
    LEADS: ClassVar[bool] = True  # a model may repeat the opening tag that stands in the prompt
    CALL_ENDS_THINKING: ClassVar[bool] = True
    TRIMS: ClassVar[bool] = True  # white space before a call is no content
    KEEPS_END: ClassVar[bool] = False  # white space at the end of the answer is content

    def __init__(self, setup: Setup, thinks: bool) -> None:
        super().__init__(ollama_id)
        self.preserved = self.PRESERVED or tuple(tag for tag in (*self.THINK, *self.CALL) if tag)
        self.tools = setup.tools
        self._lenient = setup.lenient
        if setup.lenient and not setup.tools:
            self.CALL = ("", "")  # type: ignore[misc]  # what looks like a call is content
        self.reasoning: Reasoning | None = None
        self._state = self._content
        if thinks:
            begun = setup.prompt is None or setup.prompt.rstrip().endswith(self.THINK[0])
            self.reasoning = Reasoning(*self.THINK, begun=begun)
            self._state = self._look if not begun else self._lead if self.LEADS else self._think

    def _read_call(self, raw: str) -> None:
        """Makes calls of what stands between the tags. Raises CallError when it is none."""
        raise NotImplementedError

    def _cut_off(self) -> None:
        """The answer ended inside of a call. Ollama's parsers drop it, but a few."""

    # The states.

    def _look(self) -> bool:
        """At the beginning of an answer that may reason."""
        body = self._held.lstrip(SPACE)
        if not body.startswith(self.THINK[0]):
            return self._unless_partial(body, self.THINK[0], self._content)
        self._held = body[len(self.THINK[0]) :]
        return self._skip_to(self._think)

    def _lead(self) -> bool:
        """At the beginning of reasoning that the prompt has opened."""
        body = self._held.lstrip(SPACE)
        if not body.startswith(self.THINK[0]):
            return self._unless_partial(body, self.THINK[0], self._think)
        self._held = body[len(self.THINK[0]) :]
        return self._skip_to(self._think)

    def _think(self) -> bool:
        tags = (self.THINK[1], self.CALL[0]) if self.CALL_ENDS_THINKING and self.CALL[0] else (self.THINK[1],)
        tag = self._until(tags, self._reason)
        if tag == self.THINK[1]:
            return self._skip_to(self._content)
        self._state = self._collect if tag else self._state
        return bool(tag)

    def _content(self) -> bool:
        if not self.CALL[0]:
            return self._pass()
        if self._until((self.CALL[0],), self._say, trim=self.TRIMS):
            self._state = self._collect
            return True
        return False

    def _collect(self) -> bool:
        raw, tag, rest = self._held.partition(self.CALL[1])
        if not tag:
            return False
        self._held = rest
        self._take_call(raw)
        return self._skip_to(self._content) if self.TRIMS else self._to(self._content)

    def _take_call(self, raw: str) -> None:
        try:
            self._read_call(raw)
        except CallError:
            if not self._lenient:
                raise
            self._say(self._written(raw))

    def _written(self, raw: str) -> str:
        """The call as the model wrote it, where it is to be content."""
        return self.CALL[0] + raw + self.CALL[1]

    def _end(self) -> None:
        if self._state in (self._think, self._lead):
            rest = self._rest()
            self._reason(rest if rest.strip(SPACE) else "")
        elif self._state == self._collect:
            with contextlib.suppress(CallError) if self._lenient else contextlib.nullcontext():
                self._cut_off()
        elif self._state in (self._content, self._look):
            self._say(self._rest())

    def _rest(self) -> str:
        """What is held at the end, without the beginning of a tag; a single character is none."""
        length = overlap(self._held, (*self.THINK, *self.CALL, *self.MARKS))
        kept = self._held[: len(self._held) - length].rstrip(SPACE) if length > 1 else self._held
        return kept if self.KEEPS_END or kept.strip(SPACE) else ""

    # What states are made of.

    def _reason(self, text: str) -> None:
        if text:
            self._events.append(Thinking(text))

    def _to(self, state: Callable[[], bool]) -> bool:
        self._state = state
        return True

    def _until(self, tags: tuple[str, ...], say: Callable[[str], None], *, trim: bool = True) -> str:
        """Says what stands before the first of `tags`, and takes and returns the tag; "" while there is none.

        What may turn out to be the beginning of a tag stays held, with white space before it (`trim`) that goes with a tag.
        """
        places = [(at, -len(tag), tag) for tag in tags if (at := self._held.find(tag)) >= 0]
        tag = min(places)[2] if places else ""
        before = self._held[: min(places)[0]] if places else self._held[: len(self._held) - overlap(self._held, tags)]
        before = before.rstrip(SPACE) if trim else before
        say(before)
        self._held = self._held[min(places)[0] + len(tag) :] if places else self._held[len(before) :]
        return tag

    def _skip_to(self, state: Callable[[], bool]) -> bool:
        """On to `state` with the first character that is no white space."""

        def skip() -> bool:
            self._held = self._held.lstrip(SPACE)
            return self._to(state) if self._held else False

        return self._to(skip)

    def _unless_partial(self, text: str, tag: str, state: Callable[[], bool]) -> bool:
        """On to `state`, unless `text` may still become `tag`."""
        return False if tag.startswith(text) else self._to(state)
