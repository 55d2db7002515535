"""Pieces that the families with `<|im_start|>` turns have in common."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_compat.gospace import SPACE
from ollama_compat.template.renderers.text import plain, with_images
from ollama_compat.template.renderers.turns import Turn

START, END = "<|im_start|>", "<|im_end|>"

XML_CALLS = """

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within \
<tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell the user \
about function calls
</IMPORTANT>"""
"""How a model is told to call tools in XML."""


def block(role: str, content: str) -> str:
    """A whole turn."""
    return f"{START}{role}\n{content}{END}\n"


def tool_response(turns: Sequence[Turn], at: int, content: str) -> str:
    """A tool's result; neighbouring ones share a turn of the user."""
    first = at == 0 or turns[at - 1].role != "tool"
    last = at == len(turns) - 1 or turns[at + 1].role != "tool"
    head, tail = f"{START}user" if first else "", f"{END}\n" if last else ""
    return f"{head}\n<tool_response>\n{content}\n</tool_response>{tail}"


def last_query(turns: Sequence[Turn], *, trim: bool) -> int:
    """Where the last message of the user is that is no tool's result; where there is none, the last message."""
    for at in range(len(turns) - 1, -1, -1):
        turn = turns[at]
        content = plain(with_images(turn.content, turn.images, 0))
        content = content.strip(SPACE) if trim else content
        is_result = content.startswith("<tool_response>") and content.endswith("</tool_response>")
        if turn.role == "user" and not is_result:
            return at
    return len(turns) - 1
