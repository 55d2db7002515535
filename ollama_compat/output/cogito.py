"""Cogito: DeepSeek's tags around `function<｜tool▁sep｜>name` and a block of JSON; the output of tools is dropped."""

from __future__ import annotations

import re

from ollama_compat.gospace import SPACE
from ollama_compat.output.blocks import Setup
from ollama_compat.output.deepseek3 import CALLS, OUTPUT, OUTPUT_END, SEPARATOR, DeepSeek3
from ollama_compat.output.tool_json import load_object

_OUTPUTS, _OUTPUTS_END = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"
_BLOCK = re.compile(r"\A(.*?)\n```json\n(.*?)\n```", re.DOTALL)


class Cogito(DeepSeek3):
    """Parses one answer. A call that cannot be read is left out."""

    MARKS = (OUTPUT, OUTPUT_END, _OUTPUTS, _OUTPUTS_END)

    def _content(self) -> bool:
        tag = self._until((CALLS, _OUTPUTS), self._say)
        return self._to(self._collect if tag == CALLS else self._output) if tag else False

    def _output(self) -> bool:
        end = self._held.find(_OUTPUTS_END)
        if end < 0:
            return False
        self._held = self._held[end + len(_OUTPUTS_END) :]
        return self._skip_to(self._content)

    def _read_call(self, raw: str) -> None:
        block = _BLOCK.match(raw.partition(SEPARATOR)[2])
        arguments = None if block is None else load_object(block[2])
        if block is not None and arguments is not None:
            self._call(block[1].strip(SPACE), arguments)

    def _end(self) -> None:
        self._held = "" if self._state == self._output else self._held
        super()._end()


def make(setup: Setup) -> Cogito:
    """The parser; the models reason when they are asked to and have no tools."""
    return Cogito(setup, thinks=setup.thinks() and not setup.prefilled and not setup.tools)
