"""Printing an answer as it comes: words wrapped at the edge of the terminal, thinking set apart, statistics at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from ollama_compat import duration
from ollama_compat.cli.width import char_width, text_width

GREY = "\033[38;5;245m"
BOLD = "\033[1m"
NORMAL = "\033[0m"
_MARGIN = 5  # columns kept free at the right edge
_NARROWEST = 10  # columns below which nothing is wrapped
_CLEAR_LINE = "\033[K\n"


class Wrapped:
    """Text for a terminal: a word that would pass the right edge is taken back and set on the next line.

    A file or a pipe gets the text as it is.
    """

    def __init__(self, stream: TextIO, *, wrap: bool) -> None:
        self._stream, self._wrap = stream, wrap and stream.isatty()
        self.restart()

    def restart(self) -> None:
        """The cursor is at the start of a line."""
        self._column, self._word = 0, ""

    def write(self, text: str) -> None:
        """Show more text."""
        columns = _columns(self._stream)
        wrap = self._wrap and columns >= _NARROWEST
        self._stream.write("".join(self._place(char, columns) for char in text) if wrap else text)
        self._stream.flush()

    def _place(self, char: str, columns: int) -> str:
        """What to send for one more character."""
        if self._column + 1 > columns - _MARGIN:
            return self._next_line(char, columns)
        width = char_width(char)
        self._column += width
        if width >= 2 or char in " \t":
            self._word = ""
        elif char in "\n\r":
            self.restart()
        else:
            self._word += char
        return char

    def _next_line(self, char: str, columns: int) -> str:
        word, width = self._word, text_width(self._word)
        if width > columns - _MARGIN * 2:
            self.restart()
            return f"{word}{char}"
        self._column = width + char_width(char)
        back = f"\033[{width}D" if width else ""
        return f"{back}{_CLEAR_LINE}{word}{char}"


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class Answer:
    """Shows the pieces of one answer. `plain` is without colours, `hide_thinking` without the thinking."""

    def __init__(self, *, wrap: bool, plain: bool, hide_thinking: bool) -> None:
        self._out = sys.stdout
        self._text = Wrapped(self._out, wrap=wrap)
        self._plain, self._hide = plain, hide_thinking
        self._thinking_open = False
        self.content = ""
        self.thinking = ""

    def show(self, content: str, thinking: str, tool_calls: Sequence[Mapping[str, Any]]) -> None:
        """One more piece."""
        if thinking and not self._hide:
            self._think(thinking)
        if self._thinking_open and (content or tool_calls):
            self._end_thinking()
        self.content += content
        self._text.write(content)
        if tool_calls:
            self._out.write(_tool_calls(tool_calls, plain=self._plain))
            self._out.flush()

    def abandon(self) -> None:
        """The answer was stopped: back to the start of a line, in normal colours."""
        self._out.write("\n" if self._plain or not self._thinking_open else f"{NORMAL}\n")
        self._out.flush()

    def _think(self, text: str) -> None:
        if not self._thinking_open:
            self._out.write("Thinking...\n" if self._plain else f"{GREY}{BOLD}Thinking...\n{NORMAL}{GREY}")
            self._thinking_open = True
        self.thinking += text
        self._text.write(text)

    def _end_thinking(self) -> None:
        end = "...done thinking.\n\n"
        break_line = "" if self.thinking.endswith("\n") else "\n"
        self._out.write(break_line + (end if self._plain else f"{GREY}{BOLD}{end}{NORMAL}"))
        self._thinking_open = False
        self._text.restart()


def _tool_calls(calls: Sequence[Mapping[str, Any]], *, plain: bool) -> str:
    """The command line offers no tools, so a call is only told of."""
    from ollama_compat import gojson  # only here, it is slow to import

    grey, normal = ("", "") if plain else (GREY + BOLD, NORMAL)
    lines = []
    for call in calls:
        function = call.get("function") or {}
        arguments = gojson.escaped(function.get("arguments"))
        name = f"{normal}{function.get('name', '')}{grey}"
        lines.append(f"  Model called a non-existent function '{name}()' with arguments: {normal}{arguments}{grey}")
    return grey + "\n".join(lines) + normal


def print_statistics(last: Mapping[str, Any]) -> None:
    """Times and speeds of the final object, on stderr."""
    prompt, output = last.get("prompt_eval_count", 0), last.get("eval_count", 0)
    prompt_time, output_time = last.get("prompt_eval_duration", 0), last.get("eval_duration", 0)
    lines = (
        ("total duration:", _time(last.get("total_duration", 0))),
        ("load duration:", _time(last.get("load_duration", 0))),
        ("prompt eval count:", f"{prompt} token(s)" if prompt > 0 else ""),
        ("prompt eval duration:", _time(prompt_time)),
        ("prompt eval rate:", _rate(prompt, prompt_time)),
        ("eval count:", f"{output} token(s)" if output > 0 else ""),
        ("eval duration:", _time(output_time)),
        ("eval rate:", _rate(output, output_time)),
    )
    sys.stdout.flush()
    for name, text in lines:
        if text:
            print(f"{name:<21} {text}", file=sys.stderr)


def _time(ns: int) -> str:
    return duration.text(ns) if ns > 0 else ""


def _rate(count: int, ns: int) -> str:
    return f"{count / (ns / 1e9):.2f} tokens/s" if ns > 0 else ""
