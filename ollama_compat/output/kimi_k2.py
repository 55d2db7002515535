"""Kimi K2: `<|tool_calls_section_begin|>` around calls `functions.name:0`, each with its arguments behind a tag of its own."""

from __future__ import annotations

from ollama_compat.gospace import SPACE
from ollama_compat.output.blocks import Blocks
from ollama_compat.output.tool_json import load_object

_CALL, _CALL_END, _ARGUMENTS = "<|tool_call_begin|>", "<|tool_call_end|>", "<|tool_call_argument_begin|>"


class KimiK2(Blocks):
    """Parses one answer. A call that cannot be read is left out; the model's ids are kept, for its template wants them back."""

    CALL = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
    PRESERVED = ("<think>", "</think>", *CALL, _CALL, _CALL_END, _ARGUMENTS)

    def _read_call(self, raw: str) -> None:
        for part in raw.split(_CALL)[1:]:
            id, _, rest = part.partition(_ARGUMENTS)
            arguments = load_object(rest.partition(_CALL_END)[0])
            if arguments is not None:
                name = id.strip(SPACE).removeprefix("functions.")
                self._call(name.rpartition(":")[0] or name, arguments, id.strip(SPACE))
