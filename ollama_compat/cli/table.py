"""Tables without borders: columns padded with spaces, four spaces between them, long cells wrapped."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Sequence

from ollama_compat.cli.width import text_width

GAP = "    "
CELL_WIDTH = 30  # cells are wrapped at so many columns where the caller says nothing else
_ANSI = re.compile("\033\\[(?:[0-9]{1,3}(?:;[0-9]{1,3})*)?[m|K]")


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """The lines of a cell, and the columns that it needs: those of the limit where that made it wrap."""

    lines: list[str]
    width: int


def render(rows: Sequence[Sequence[str]], header: Sequence[str] = (), cell_width: int = CELL_WIDTH) -> str:
    """The table's lines, each ended by a newline. Trailing spaces are Ollama's: one after a header, a gap after a row."""
    heads = [wrap(cell, cell_width) for cell in header]
    cells = [[wrap(cell, cell_width) for cell in row] for row in rows]
    widths = _column_widths([heads, *cells])
    lines = [_header_line(header, widths)] if header else []
    for row in cells:
        lines.extend(_row_lines([cell.lines for cell in row], widths))
    return "".join(f"{line}\n" for line in lines)


def fitted(rows: Sequence[Sequence[str]], header: Sequence[str], cell_width: int = CELL_WIDTH) -> str:
    """The same without trailing spaces; on a terminal that is too narrow for it each row as a few lines: the first cell, and
    below it each of the others behind its header."""
    lines = [line.rstrip() for line in render(rows, header, cell_width).splitlines()]
    columns = _columns()
    if columns and max(map(_width, lines)) > columns:
        lines = [line for row in rows for line in _flowing(row, header, columns)]
    return "".join(f"{line}\n" for line in lines)


def _columns() -> int:
    """Of the terminal that is written to; 0 where it is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0
    except (OSError, ValueError):
        return 0


def _flowing(row: Sequence[str], header: Sequence[str], columns: int) -> list[str]:
    lines = [row[0], ""]
    for name, cell in zip(header[1:], row[1:], strict=True):
        pair = f"  {name} {cell}" if name else f"  {cell}"
        if lines[-1] and _width(lines[-1] + pair) > columns:
            lines.append("")
        lines[-1] += pair if cell.strip() else ""
    return lines


def _column_widths(rows: Sequence[Sequence[Cell]]) -> list[int]:
    count = max((len(row) for row in rows), default=0)
    return [max(row[column].width for row in rows if column < len(row)) for column in range(count)]


def _width(text: str) -> int:
    return text_width(_ANSI.sub("", text))


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _header_line(header: Sequence[str], widths: Sequence[int]) -> str:
    cells = [_pad(header[i] if i < len(header) else "", width) for i, width in enumerate(widths)]
    return GAP.join(cells) + " "


def _row_lines(row: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    height = max((len(cell) for cell in row), default=0)
    # a cell that has run out of lines is two spaces, even in a column of no width
    filled = [[*cell, *["  "] * (height - len(cell))] for cell in row]
    return ["".join(_pad(cell[i], widths[column]) + GAP for column, cell in enumerate(filled)) for i in range(height)]


def wrap(text: str, limit: int) -> Cell:
    """A cell in lines, as even as can be (least sum of squared gaps), none longer than `limit` or the longest word."""
    widest = min(max(_width(line) for line in text.split("\n")), limit)
    words = text.replace("\n", " ").split(" ")
    sizes = [text_width(word) for word in words]
    lines = [" ".join(words[start:end]) for start, end in _breaks(sizes, max(widest, *sizes))]
    return Cell(lines, max(widest, *map(_width, lines)))


def _breaks(sizes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Word ranges of the lines."""
    count = len(sizes)
    cost, following = [0] * (count + 1), [count] * count
    for start in range(count - 1, -1, -1):
        following[start], cost[start] = _best_break(sizes, start, limit, cost)
    lines, start = [], 0
    while start < count:
        lines.append((start, following[start]))
        start = following[start]
    return lines


def _best_break(sizes: Sequence[int], start: int, limit: int, cost: Sequence[int]) -> tuple[int, int]:
    """Where the line that begins at word `start` best ends, and what it and the lines after it cost."""
    length, best, best_cost = -1, start + 1, -1
    for end in range(start + 1, len(sizes) + 1):
        length += 1 + sizes[end - 1]
        if length > limit:
            break
        if end == len(sizes):
            return end, 0
        here = (limit - length) ** 2 + cost[end]
        if best_cost < 0 or here < best_cost:
            best, best_cost = end, here
    return best, best_cost
