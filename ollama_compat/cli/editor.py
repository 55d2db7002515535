"""Reading a line from a terminal: editing, history, pastes, and messages of several lines."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Protocol

from ollama_compat.cli.history import History
from ollama_compat.cli.keys import Keys
from ollama_compat.cli.line import Line
from ollama_compat.cli.screen import MORE_PROMPT, PROMPT, Screen

PLACEHOLDER, MORE_PLACEHOLDER = "Send a message (/? for help)", "Press Enter to send"
_PASTE_ON, _PASTE_OFF = "\033[?2004h", "\033[?2004l"


class Compose(Exception):
    """The text so far shall be written in an external editor."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Reader(Protocol):
    """Where an interactive session gets its lines from."""

    more: bool  # the next line continues a message
    pasting: bool  # the last line came from the middle of a paste
    prefill: str  # text that the next line begins with

    def read(self) -> str:
        """A line; EOFError at the end, KeyboardInterrupt for Ctrl+C, Compose for Ctrl+G."""


def open_reader(history: History) -> Reader:
    """The line editor, or plain input where there are no POSIX terminals."""
    try:
        import termios  # noqa: F401
    except ImportError:
        return PlainReader(history)
    return Editor(history)


class PlainReader:
    """Lines as Python's input() reads them."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.more, self.pasting, self.prefill = False, False, ""

    def read(self) -> str:
        line = input(MORE_PROMPT if self.more else PROMPT)
        self.more = False
        if line:
            self._history.add(line)
        return line


class Editor:
    """A line editor for terminals."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._keys = Keys(sys.stdin.fileno())
        self._screen = Screen()
        self.more, self.pasting, self.prefill = False, False, ""
        self._line = Line()
        self._above: list[str] = []  # lines of the message that Ctrl+J has ended
        self._typed = ""  # what stood there before the history was looked through
        self._drained = False  # the key did not come alone
        self._suspended = False
        self._edits = self._edit_table()

    def read(self) -> str:
        with _raw_mode(sys.stdin.fileno()):
            self._start(MORE_PROMPT if self.pasting else self._prompt)
            self._begin_with(self.prefill)
            self.prefill = ""
            while (message := self._take(*self._next_key())) is None:
                pass
        if self._suspended:
            self._suspended = False
            os.kill(0, signal.SIGTSTP)  # and when the shell has brought the session back, it goes on with an empty line
        return message

    @property
    def _prompt(self) -> str:
        return MORE_PROMPT if self.more else PROMPT

    def _start(self, prompt: str) -> None:
        self._line.set("")
        self._screen.start(prompt)

    def _begin_with(self, text: str) -> None:
        for number, line in enumerate(text.split("\n")):
            if number:
                self._break_line()
            for char in line:
                self._type(char)

    def _next_key(self) -> tuple[str, str]:
        empty = not self._line.chars
        if empty and (not self.pasting or self.more):
            self._screen.hint(MORE_PLACEHOLDER if self.more else PLACEHOLDER)
        before = self._keys.waiting
        key = self._keys.next()
        self._drained = before or self._keys.waiting
        if empty:
            self._screen.unhint()
        return key

    def _take(self, name: str, char: str) -> str | None:
        """One key; the message when the key ends it."""
        for one in char:
            self._type(one)
        if name == "enter" or (name == "line-feed" and self._drained):
            return self._enter()
        if name == "delete-or-end" and not self._line.chars:
            raise EOFError
        if name == "suspend":
            self._suspended = True
            return ""
        if name in self._edits:
            self._edits[name]()
            self._screen.draw(self._line)
        elif name in self._others:
            self._others[name](self)
        return None

    def _edit_table(self) -> dict[str, Callable[[], None]]:
        """What changes the line or moves in it, after which it is drawn."""
        line = self._line
        return {
            "left": lambda: line.move(line.at - 1),
            "right": lambda: line.move(line.at + 1),
            "word-left": lambda: line.move(line.word_left()),
            "word-right": lambda: line.move(line.word_right()),
            "home": lambda: line.move(0),
            "end": lambda: line.move(len(line.chars)),
            "delete": lambda: line.cut(line.at, line.at + 1),
            "delete-or-end": lambda: line.cut(line.at, line.at + 1),
            "kill-right": lambda: line.cut(line.at, len(line.chars)),
            "kill-left": lambda: line.cut(0, line.at),
            "kill-word": lambda: line.cut(line.word_left(), line.at),
            "up": self._older,
            "down": self._newer,
        }

    def _type(self, char: str) -> None:
        self._line.insert(char)
        if self._line.at == len(self._line.chars):
            self._screen.append(char)
        else:
            self._screen.draw(self._line)

    def _enter(self) -> str:
        self._line.move(len(self._line.chars))
        self._screen.draw(self._line)
        self._screen.write("\n")
        self.more = False
        text = self._message()
        if text:
            self._history.add(text)
        return text

    def _message(self) -> str:
        """All lines of the message, which are then forgotten."""
        text = "\n".join([*self._above, str(self._line)])
        self._above = []
        return text

    def _interrupt(self) -> None:
        self.more, self._above = False, []
        raise KeyboardInterrupt

    def _compose(self) -> None:
        self._screen.wipe(len(self._above))
        self.more = False
        raise Compose(self._message())

    def _break_line(self) -> None:
        """Ctrl+J: another line of the same message."""
        self._above.append(str(self._line))
        self.more = True
        self._screen.write("\n")
        self._start(MORE_PROMPT)

    def _backspace(self) -> None:
        if self._line.chars or not self._above:
            self._line.cut(self._line.at - 1, self._line.at)
            self._screen.draw(self._line)
            return
        before = self._above.pop()
        self.more = bool(self._above)
        self._screen.back_to(self._prompt)
        self._begin_with(before)

    def _older(self) -> None:
        typed = str(self._line) if self._history.at_end else self._typed
        entry = self._history.previous()
        if entry is not None:
            self._typed = typed
            self._line.set(entry)

    def _newer(self) -> None:
        entry = self._history.next()
        if entry is not None:
            self._line.set(self._typed if self._history.at_end else entry)

    def _paste_begins(self) -> None:
        self.pasting = True

    def _paste_ends(self) -> None:
        self.pasting = False

    def _clear(self) -> None:
        self._screen.clear(self._line)

    _others: ClassVar[Mapping[str, Callable[[Editor], None]]] = {
        "interrupt": _interrupt,
        "compose": _compose,
        "line-feed": _break_line,
        "backspace": _backspace,
        "clear": _clear,
        "paste-begin": _paste_begins,
        "paste-end": _paste_ends,
    }


@contextmanager
def bracketed_paste() -> Iterator[None]:
    """The terminal marks what is pasted."""
    sys.stdout.write(_PASTE_ON)
    try:
        yield
    finally:
        sys.stdout.write(_PASTE_OFF)
        sys.stdout.flush()


@contextmanager
def _raw_mode(descriptor: int) -> Iterator[None]:
    """Keys arrive one by one and are not echoed; output stays as it is."""
    import termios

    before = termios.tcgetattr(descriptor)
    raw = termios.tcgetattr(descriptor)
    off = termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR | termios.ICRNL
    raw[0] &= ~(off | termios.IXON)
    raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, raw)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
