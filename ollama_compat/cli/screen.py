"""Drawing the line that is being edited: a prompt, then rows of text that each begin below it."""

from __future__ import annotations

import os
import sys

from ollama_compat.cli.answer import GREY, NORMAL
from ollama_compat.cli.line import Line
from ollama_compat.cli.width import char_width

PROMPT, MORE_PROMPT = ">>> ", "... "
_CLEAR_RIGHT = "\033[K"
_CLEAR_SCREEN = "\033[2J\033[0;0f"
_LINE_START = "\033[1G"


class Screen:
    """Knows on which row of the line the cursor stands. Rows that wrap begin with `... `, which is as wide as the prompt."""

    def __init__(self) -> None:
        self._prompt = PROMPT
        self._row = 0  # of the cursor
        self._rows = 1  # on the screen
        self._used = 0  # cells of the last row

    @property
    def width(self) -> int:
        """Cells of a row behind its prompt."""
        try:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns
        except OSError:
            columns = 80
        return max(columns - len(PROMPT), 2)

    def start(self, prompt: str) -> None:
        """Begin an empty line here."""
        self._prompt, self._row, self._rows, self._used = prompt, 0, 1, 0
        self.write(prompt)

    def hint(self, text: str) -> None:
        """Show a grey text behind the cursor, as much as there is room for."""
        text = text[: self.width]
        self.write(f"{GREY}{text}\033[{len(text)}D{NORMAL}")

    def unhint(self) -> None:
        """Take the grey text away."""
        self.write(_CLEAR_RIGHT)

    def append(self, char: str) -> None:
        """A character was put at the end. Nothing else is drawn: long pastes are quick and may be higher than the screen."""
        cells, width = char_width(char), self.width
        before = self._next_row() if self._used + cells > width else ""
        self._used += cells
        after = self._next_row() if self._used == width else ""
        self.write(f"{before}{char}{after}")

    def _next_row(self) -> str:
        self._rows, self._used = self._rows + 1, 0
        self._row = self._rows - 1
        return f"\n{MORE_PROMPT}"

    def draw(self, line: Line) -> None:
        """Draw the line anew."""
        rows = line.rows(self.width)
        row, column = line.cursor(self.width)
        prompts = [self._prompt] + [MORE_PROMPT] * (len(rows) - 1)
        drawn = [f"{prompt}{text}{_CLEAR_RIGHT}" for prompt, text in zip(prompts, rows, strict=True)]
        drawn += [_LINE_START + _CLEAR_RIGHT] * (self._rows - len(rows))
        place = f"{_up(len(drawn) - 1 - row)}\033[{column + len(PROMPT) + 1}G"
        self.write(f"{_up(self._row)}{_LINE_START}" + "\n".join(drawn) + place)
        self._row, self._rows, self._used = row, len(rows), sum(map(char_width, rows[-1]))

    def clear(self, line: Line) -> None:
        """Only the line is left on the screen."""
        self._row, self._rows = 0, 1
        self.write(_CLEAR_SCREEN)
        self.draw(line)

    def wipe(self, above: int) -> None:
        """Take away the line and as many single rows above it."""
        down = self._rows - 1 - self._row
        wiped = f"{_LINE_START}{_CLEAR_RIGHT}"
        self.write((f"\033[{down}B" if down else "") + f"{wiped}\033[1A" * (self._rows - 1 + above) + wiped)

    def back_to(self, prompt: str) -> None:
        """Leave this empty line and begin again on the one above."""
        self.write(f"{_LINE_START}{_CLEAR_RIGHT}\033[1A{_LINE_START}{_CLEAR_RIGHT}")
        self.start(prompt)

    def write(self, text: str) -> None:
        """Send text to the terminal."""
        sys.stdout.write(text)
        sys.stdout.flush()


def _up(rows: int) -> str:
    return f"\033[{rows}A" if rows else ""
