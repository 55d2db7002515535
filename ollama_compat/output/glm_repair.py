"""GLM's calls with tags missing, put right as Ollama does: the four tags of an argument follow each other in a fixed order."""

from __future__ import annotations

from ollama_compat.gospace import SPACE

KEY, KEY_END, VALUE, VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
_CYCLE = (KEY, KEY_END, VALUE, VALUE_END)


def repaired(text: str) -> str:
    """The call with the tags that are missing."""
    at, first = _next_tag(text)
    return text if at < 0 else _Repair(text[:at], text[at:], first).run()


def _next_tag(text: str) -> tuple[int, str]:
    """Where the first tag is, and which; -1: there is none."""
    places = [(at, tag) for tag in _CYCLE if (at := text.find(tag)) >= 0]
    return min(places, default=(-1, ""))


class _Repair:
    def __init__(self, head: str, rest: str, first: str) -> None:
        self._rest = rest
        self._phase = 0  # which tag of the cycle has to come
        if first == KEY or not head.strip(SPACE) or not any(char in SPACE for char in head):
            self._out = head
        else:  # name and key stand side by side
            space = next(at for at, char in enumerate(head) if char in SPACE)
            self._out = head[:space] + KEY + head[space:].lstrip(SPACE)
            self._phase = 1

    def run(self) -> str:
        while self._rest and self._step():
            pass
        return self._out + ("", KEY_END + VALUE + VALUE_END, VALUE + VALUE_END, VALUE_END)[self._phase]

    def _step(self) -> bool:
        """Takes the next tag; whether there may be more."""
        at, found = _next_tag(self._rest)
        opens = self._phase % 2 == 0
        if at < 0:
            if not opens:
                self._put(self._rest + _CYCLE[self._phase])
            return False
        if found == _CYCLE[self._phase]:
            self._put(self._rest[: at + len(found)])
            self._rest = self._rest[at + len(found) :]
        elif opens and at > 0:  # an opening tag was left out
            self._put(_CYCLE[self._phase] + self._rest[:at])
            self._rest = self._rest[at:]
        else:
            self._catch_up(at, found)
        return True

    def _catch_up(self, at: int, found: str) -> None:
        """Puts the tags that are missing before `found`."""
        while _CYCLE[self._phase] != found:
            is_last = _CYCLE[(self._phase + 1) % 4] == found
            if self._phase % 2 == 1 and is_last and at > 0:
                self._out += self._rest[:at]
                self._rest, at = self._rest[at:], 0
            self._put(_CYCLE[self._phase])

    def _put(self, text: str) -> None:
        self._out += text
        self._phase = (self._phase + 1) % 4
