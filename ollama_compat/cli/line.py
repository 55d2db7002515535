"""The text of one line under the cursor, and how it lies on the rows of a terminal."""

from __future__ import annotations

import dataclasses

from ollama_compat.cli.width import char_width


@dataclasses.dataclass(slots=True)
class Line:
    """Characters and the cursor before one of them."""

    chars: list[str] = dataclasses.field(default_factory=list)
    at: int = 0

    def __str__(self) -> str:
        return "".join(self.chars)

    def set(self, text: str) -> None:
        """Another text, the cursor behind it."""
        self.chars = list(text)
        self.at = len(self.chars)

    def insert(self, text: str) -> None:
        """Put text before the cursor."""
        self.chars[self.at : self.at] = text
        self.at += len(text)

    def move(self, to: int) -> None:
        """Move the cursor, as far as there are characters."""
        self.at = min(max(to, 0), len(self.chars))

    def word_left(self) -> int:
        """Start of the word before the cursor."""
        at = self.at
        while at and self.chars[at - 1] == " ":
            at -= 1
        while at and self.chars[at - 1] != " ":
            at -= 1
        return at

    def word_right(self) -> int:
        """End of the word behind the cursor."""
        at = min(self.at + 1, len(self.chars))
        while at < len(self.chars) and self.chars[at] != " ":
            at += 1
        return at

    def cut(self, start: int, end: int) -> None:
        """Remove a range; the cursor goes to where it was."""
        start, end = max(start, 0), min(end, len(self.chars))
        if start < end:
            del self.chars[start:end]
            self.at = start

    def rows(self, width: int) -> list[str]:
        """The text in rows of `width` cells; a full last row is followed by an empty one, where the cursor goes."""
        rows, used = [""], 0
        for char in self.chars:
            cells = char_width(char)
            if used + cells > width:
                rows.append("")
                used = 0
            rows[-1] += char
            used += cells
            if used == width:
                rows.append("")
                used = 0
        return rows

    def cursor(self, width: int) -> tuple[int, int]:
        """Row and cell of the cursor in rows of `width` cells."""
        before = Line(self.chars[: self.at]).rows(width)
        row, column = len(before) - 1, sum(map(char_width, before[-1]))
        if self.at < len(self.chars) and column + char_width(self.chars[self.at]) > width:
            return row + 1, 0
        return row, column
