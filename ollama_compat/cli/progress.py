"""Progress on stderr: lines that are redrawn in place on a terminal, and plain lines anywhere else."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from ollama_compat import duration
from ollama_compat.cli import human
from ollama_compat.cli.width import text_width

TICK = 0.1  # seconds between two drawings
DEFAULT_SIZE = (80, 24)
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_HIDE, _SHOW = "\033[?25l", "\033[?25h"
_BEGIN, _END = "\033[?2026h", "\033[?2026l"  # a frame that the terminal shows as a whole
_ERASE = "\033[2K\033[1G"


class Line(Protocol):
    """One line of progress."""

    def text(self, columns: int) -> str:
        """How it looks now."""

    def finish(self) -> None:
        """The work is over."""


class Spinner:
    """A message with a turning sign behind it."""

    def __init__(self, message: str) -> None:
        self.message = message
        self._started = time.monotonic()
        self._running = True

    def text(self, columns: int) -> str:
        message = f"{self.message.strip()} " if self.message else ""
        turn = int((time.monotonic() - self._started) / TICK) % len(_FRAMES)
        return f"{message}{_FRAMES[turn]} " if self._running else message

    def finish(self) -> None:
        self._running = False


class Bar:
    """A message, a share of `total` bytes, the speed and the time left."""

    def __init__(self, message: str, total: int, done: int) -> None:
        self.message, self._total, self._first, self._done = message, total, done, done
        self._marks = [(time.monotonic(), done)]  # at most ten, a second apart; speed is between the first and the last
        self._stopped = done >= total

    def set(self, done: int) -> None:
        """So many bytes are done."""
        self._done = min(done, self._total)
        self._stopped = self._stopped or self._done >= self._total
        if time.monotonic() - self._marks[-1][0] > 1:
            self._marks = [*self._marks[-9:], (time.monotonic(), self._done)]

    def finish(self) -> None:
        """A bar that did not reach its end keeps showing where it stood."""

    def text(self, columns: int) -> str:
        share = self._done / self._total if self._total > 0 else 0.0
        before = f"{self.message.strip()} {share * 100:3.0f}%" if self.message else f"{share * 100:3.0f}%"
        after = self._amounts() + self._pace()
        room = columns - len(before) - len(after) - 5
        filled = int(room * share)
        return f"{before} ▕{'█' * filled}{' ' * (room - filled)}▏ {after}"

    def _amounts(self) -> str:
        total = f"{human.size(self._total):>6}"
        return f"{total}{' ' * 7}" if self._stopped else f"{human.size(self._done):>6}/{total}"

    def _pace(self) -> str:
        rate = self._rate()
        if self._stopped or rate <= 0:
            return " " * 18
        left = _left(int((self._total - self._done) / rate))
        return f"  {human.size(int(rate)):>6}/s  {left:>6}"

    def _rate(self) -> float:
        """Bytes a second."""
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        seconds = round(end - start)
        return (last - first) / seconds if seconds else 0.0


def _left(seconds: int) -> str:
    if seconds >= 100 * 3600:
        return "99h+"
    if seconds >= 3600:
        return f"{seconds // 3600}h{seconds // 60 % 60}m"
    return duration.text(seconds * 10**9)


class Progress:
    """Draws lines until it is left; with `clear` it then wipes them away."""

    def __init__(self, stream: TextIO, *, clear: bool = False) -> None:
        self._stream, self._clear = stream, clear
        self._live = stream.isatty()
        self._lock = threading.Lock()
        self._lines: list[Line] = []
        self._drawn = 0  # rows of the screen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._redraw, daemon=True)

    def __enter__(self) -> Self:
        if self._live:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def add(self, line: Line) -> None:
        """Draw `line` below the others from now on. Where nothing can be redrawn the line above is written now."""
        with self._lock:
            if not self._live:
                self._write_plain()
            self._lines.append(line)

    def stop(self, *, clear: bool | None = None) -> None:
        """Draw for the last time, or wipe the lines away. Further calls do nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        clear = self._clear if clear is None else clear
        for line in self._lines:
            line.finish()
        if not self._live:
            if not clear:
                self._write_plain()
            return
        self._thread.join()
        with self._lock:
            frame = self._frame()
            wipe = "\033[A".join([_ERASE] * self._drawn)
            self._put(f"{_HIDE}{frame}{wipe}{_SHOW}" if clear else f"{frame}\n")

    def _redraw(self) -> None:
        while not self._stop.wait(TICK):
            with self._lock:
                self._put(self._frame())

    def _frame(self) -> str:
        columns, rows = _size(self._stream)
        shown = [line.text(columns) for line in self._lines[-rows:]]
        up = "\033[A" * max(self._drawn - 1, 0)
        self._drawn = sum(max(-(-text_width(text) // columns), 1) for text in shown)
        return f"{_BEGIN}{_HIDE}{up}\033[1G" + "\n".join(f"{text}\033[K" for text in shown) + f"{_SHOW}{_END}"

    def _write_plain(self) -> None:
        """The newest line, for the last time, into a file or a pipe; without its spinning sign."""
        if self._lines and not self._clear:
            self._lines[-1].finish()
            text = self._lines[-1].text(DEFAULT_SIZE[0]).rstrip()
            self._put(f"{text}\n" if text else "")

    def _put(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _size(stream: TextIO) -> tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return DEFAULT_SIZE
    return columns or DEFAULT_SIZE[0], rows or DEFAULT_SIZE[1]
