"""Key presses from a terminal in raw mode."""

from __future__ import annotations

import codecs
import os
from collections import deque

ESCAPE = "\x1b"

SEQUENCES = {
    "A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end",
    "1~": "home", "7~": "home", "4~": "end", "8~": "end", "3~": "delete",
    "1;5C": "word-right", "1;3C": "word-right", "1;5D": "word-left", "1;3D": "word-left",
    "200~": "paste-begin", "201~": "paste-end",
}  # fmt: skip
CONTROLS = {
    "\x01": "home", "\x02": "left", "\x03": "interrupt", "\x04": "delete-or-end", "\x05": "end", "\x06": "right",
    "\x07": "compose", "\x08": "backspace", "\x0a": "line-feed", "\x0b": "kill-right", "\x0c": "clear", "\x0d": "enter",
    "\x0e": "down", "\x10": "up", "\x15": "kill-left", "\x17": "kill-word", "\x1a": "suspend", "\x7f": "backspace",
}  # fmt: skip
ALT = {"b": "word-left", "f": "word-right", "\x7f": "kill-word"}


class Keys:
    """Reads keys from a file descriptor. A key is a character, or the name of what a control key does."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting: deque[str] = deque()

    @property
    def waiting(self) -> bool:
        """Whether more came at once with the last key: typed ahead, or pasted."""
        return bool(self._waiting)

    def next(self) -> tuple[str, str]:
        """(name, "") of a control key, ("", character) of another; ("", "") of one that means nothing. EOFError at the end."""
        char = self._char()
        if char == ESCAPE:
            return self._escaped(), ""
        if char == "\t":
            return "", " " * 8
        if char < " " or char == "\x7f":
            return CONTROLS.get(char, ""), ""
        return "", char

    def _escaped(self) -> str:
        char = self._char()
        if char == "O":
            return SEQUENCES.get(self._char(), "")
        if char != "[":
            return ALT.get(char, "")
        sequence = ""
        while not sequence or not "@" <= sequence[-1] <= "~":
            sequence += self._char()
        return SEQUENCES.get(sequence, "")

    def _char(self) -> str:
        while not self._waiting:
            data = os.read(self._descriptor, 4096)
            if not data:
                raise EOFError
            self._waiting.extend(self._decoder.decode(data))
        return self._waiting.popleft()
