"""DeepSeek V3.1: `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}<｜tool▁call▁end｜><｜tool▁calls▁end｜>`."""

from __future__ import annotations

from typing import ClassVar

from ollama_compat.gospace import SPACE
from ollama_compat.output.blocks import Blocks, Setup
from ollama_compat.output.tool_json import load_object

CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"
OUTPUT, OUTPUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"


class DeepSeek3(Blocks):
    """Parses one answer. A call that cannot be read is left out; the tags of a tool's output are dropped from content."""

    CALL = (CALLS, CALLS_END)
    LEADS = False
    CALL_ENDS_THINKING = False
    KEEPS_END = True
    MARKS: ClassVar[tuple[str, ...]] = (OUTPUT, OUTPUT_END)

    def __init__(self, setup: Setup, thinks: bool) -> None:
        super().__init__(setup, thinks)
        self.preserved = (self.THINK[1], CALLS, CALLS_END, CALL, CALL_END, SEPARATOR, *self.MARKS)

    def _content(self) -> bool:
        before = self._held.find(OUTPUT)
        if before >= 0 and (CALLS not in self._held or before < self._held.find(CALLS)):
            self._say(self._held[:before])  # with its white space
            self._held = self._held[before + len(OUTPUT) :]
            return self._to(self._output)
        tag = self._until((CALLS, OUTPUT), self._say)
        return self._to(self._collect) if tag else False

    def _output(self) -> bool:
        if self._until((OUTPUT_END,), self._say, trim=False):
            return self._to(self._content)
        return False

    def _collect(self) -> bool:
        """Inside of the calls: each is told as soon as it is whole."""
        end = self._held.find(CALLS_END)
        raw, tag, rest = self._held.partition(CALL_END)
        if tag and (end < 0 or len(raw) < end):
            self._held = rest
            self._read_call(raw.partition(CALL)[2])
            return True
        if end < 0:
            return False
        self._held = self._held[end + len(CALLS_END) :]
        return self._skip_to(self._content)

    def _read_call(self, raw: str) -> None:
        name, separator, text = raw.partition(SEPARATOR)
        arguments = load_object(text.strip(SPACE))
        if separator and arguments is not None:
            self._call(name.strip(SPACE), arguments)

    def _end(self) -> None:
        if self._state == self._output:
            self._say(self._rest())
        super()._end()


def make(setup: Setup) -> DeepSeek3:
    """The parser; the models reason only when they are asked to."""
    return DeepSeek3(setup, thinks=setup.thinks() and not setup.prefilled)
