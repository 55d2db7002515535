"""Tool calls as JSON objects behind a tag: most dialects are this with tags of their own.

llama-server lets a model write nothing but a well-formed call of a known tool behind the tag. Where that is not
enforced, here is what becomes of the rest: a call of an unknown tool is a call; what is no call at all is content, tags
and all; a call that the answer's end cuts off is dropped (Ollama fails or drops it, depending on where the cut is).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from ollama_compat.output.machine import Machine, overlap
from ollama_compat.output.tool_json import Scanner, call_id, llama_server_id, load_object, named_call

_SPACE = r"\s*"


@dataclasses.dataclass(frozen=True, slots=True)
class CallTags:
    """`start`, white space, an object or several with commas between, white space, `end`."""

    start: str
    end: str
    before: str = _SPACE  # regular expression of what may stand between `start` and the first object
    never: str = ""  # a character that begins `end` and cannot stand in JSON outside of a string


class TaggedCalls(Machine):
    """Splits tool calls from content. `fresh`: nothing came before, so leading white space is dropped."""

    def __init__(self, tags: CallTags, *, fresh: bool, new_id: Callable[[], str] = llama_server_id) -> None:
        super().__init__(new_id)
        self.json_tags = (tags.start, tags.end) if tags.before == _SPACE else None  # around a single object
        self.preserved = tuple(tag for tag in (tags.start, tags.end) if len(tag) > 1)
        self._tags = tags
        self._before = re.compile(tags.before)
        self._state = self._text
        self._skip_space = fresh
        self._opening = ""  # what made this a call so far; content after all, if it is none
        self._scanner = Scanner()

    def _end(self) -> None:
        if self._state == self._text:
            self._say(self._held)
        elif self._state == self._open:
            self._say(self._opening + self._held)

    def _text(self) -> bool:
        if self._skip_space:
            self._held = self._held.lstrip()
        before, tag, rest = self._held.partition(self._tags.start)
        if tag:
            self._say(before)
            self._held = rest
            self._opening = tag
            self._state = self._open
            return True
        settled = len(self._held) - overlap(self._held, self._tags.start)
        self._say(self._held[:settled])
        self._held = self._held[settled:]
        return False

    def _open(self) -> bool:
        found = self._before.match(self._held)
        begin = 0 if found is None else found.end()
        if begin == len(self._held):
            return False
        if self._held[begin] != "{":
            return self._content_after_all(0)
        self._opening += self._held[:begin]
        self._held = self._held[begin:]
        self._scanner = Scanner(never=self._tags.never)
        self._state = self._object
        return True

    def _object(self) -> bool:
        end = self._scanner.scan(self._held)
        if end < 0:
            return self._scanner.broken and self._content_after_all(0)
        value = load_object(self._held[:end])
        call = None if value is None else named_call(value)
        if value is None or call is None:
            return self._content_after_all(end)
        self._call(*call, call_id(value))
        self._held = self._held[end:]
        self._state = self._close
        return True

    def _close(self) -> bool:
        """After an object: the end tag, or another object."""
        body = self._held = self._held.lstrip(" \t\r\n,")
        if body.startswith("{"):
            self._opening = ""
            self._state = self._open
            return True
        if not body or (self._tags.end.startswith(body) and body != self._tags.end):
            return False
        self._held = body.removeprefix(self._tags.end)
        self._skip_space = True
        self._state = self._text
        return True

    def _content_after_all(self, length: int) -> bool:
        """What made this a call so far, and `length` characters of what is held, are content."""
        self._say(self._opening + self._held[:length])
        self._held = self._held[length:]
        self._state = self._text
        return True

    def _say(self, text: str) -> None:
        super()._say(text)
        self._skip_space = self._skip_space and not text
