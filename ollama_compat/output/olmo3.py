"""Olmo 3: `<function_calls>name(key="value")</function_calls>`, one call a line; the thinking models know no tools."""

from __future__ import annotations

import re
from typing import Any

from ollama_compat.gospace import SPACE
from ollama_compat.output import python_calls
from ollama_compat.output.blocks import Blocks, Setup

_CALL = re.compile(r"([A-Za-z0-9_]+)\((.*)\)")


class Olmo3(Blocks):
    """Parses one answer. When a line is no call, there are none."""

    THINK = ("", "")
    CALL = ("<function_calls>", "</function_calls>")
    TRIMS = False
    KEEPS_END = True

    def _read_call(self, raw: str) -> None:
        lines = [stripped for line in raw.split("\n") if (stripped := line.strip(SPACE))]
        calls = [_call(line) for line in lines]
        for call in calls if None not in calls else ():
            assert call is not None
            self._call(*call)


class Olmo3Think(Blocks):
    """Parses one answer of a thinking model."""

    CALL = ("", "")
    PRESERVED = ("</think>",)
    LEADS = False
    KEEPS_END = True


def make(setup: Setup) -> Olmo3:
    """The parser of the models that answer at once."""
    return Olmo3(setup, thinks=False)


def think(setup: Setup) -> Olmo3Think:
    """The parser of the thinking models, which always reason."""
    return Olmo3Think(setup, thinks=not setup.prefilled)


def _call(line: str) -> tuple[str, dict[str, Any]] | None:
    found = _CALL.fullmatch(line)
    if found is None:
        return None
    try:
        arguments = python_calls.loose_arguments(found[2])
    except RecursionError:
        return None
    return None if arguments is None else (found[1], arguments)
