"""MiniMax M2: `<minimax:tool_call><invoke name="..."><parameter name="...">value</parameter></invoke></minimax:tool_call>`."""

from __future__ import annotations

import re

from ollama_compat.output.blocks import Blocks
from ollama_compat.output.call_values import trimmed, types_of
from ollama_compat.output.xml_calls import contents

_TAGS = re.compile(r'</?(?:invoke|parameter)(?:\s+name="[^"]*")?>')


class MiniMaxM2(Blocks):
    """Parses one answer; values of arguments get the types that the tools' schemas give them."""

    CALL = ("<minimax:tool_call>", "</minimax:tool_call>")

    def _read_call(self, raw: str) -> None:
        for call in contents(raw, _TAGS, "tool_call").children:
            name = call.attribute
            pairs = ((child.attribute, child.text) for child in call.children)
            self._call(name, {key: trimmed(text, types_of(self.tools, name, key)) for key, text in pairs})
