"""Glimmer: messages addressed to somebody, calls in XML with a prefix of its own."""

from __future__ import annotations

import datetime
import re

from ollama_compat.template.renderers.text import plain, string, to_json, tool_json, verb_v, with_images
from ollama_compat.template.renderers.turns import Conversation, Tool, Turn

BOS = "<|begin_of_text|>"
_START, _MESSAGE, _MORE, _END = "<|start|>", "<|message|>", "<|eom|>", "<|eot|>"
_IDENTITY = "You are a helpful AI assistant."
_CUTOFF = "2026-01-04"
_EFFORT = re.compile("Reasoning effort|Reasoning Effort|reasoning effort|REASONING EFFORT")
_BEFORE_TOOLS = """In this environment you have access to a set of tools you can use to answer the user's question.

You can invoke a function by writing a "<atem:function_calls>" block like the following:
<atem:function_calls>
<atem:invoke name="$FUNCTION_NAME">
<atem:parameter name="$PARAMETER_NAME">$PARAMETER_VALUE</atem:parameter>
...
</atem:invoke>
</atem:function_calls>

String and scalar parameters should be specified as is, while lists and objects should use JSON format. Note that spaces for \
string values are not stripped. The output is not expected to be valid XML and is parsed with regular expressions.
Here are the functions available in JSONSchema format:
// Tool metadata
"""
_AFTER_TOOLS = """

Here's an example of how to call a function in the tool set:
(If the tool namespace is not specified, invoke the function directly as `example_function_name` rather than \
`example_tool_name.example_function_name`)

to=example_tool_name.example_function_name

<atem:function_calls>
<atem:invoke name="example_tool_name.example_function_name">
<atem:parameter name="example_parameter_1">value_1</atem:parameter>
<atem:parameter name="example_parameter_2">This is the value for the second parameter
that can span
"multiple" lines
</atem:parameter>
</atem:invoke>
</atem:function_calls>"""


def render(conversation: Conversation) -> str:
    """The prompt; the strength of the reasoning stands in the system's message."""
    turns = conversation.turns
    text, offset = BOS, 0
    if not any(turn.role == "system" for turn in turns):
        today = datetime.date.today().isoformat()
        text += _system(conversation, f"{_IDENTITY}\nKnowledge cutoff: {_CUTOFF}.\nCurrent date: {today}.")
    for at, turn in enumerate(turns):
        content = with_images(turn.content, turn.images, offset)
        offset += turn.images
        if turn.role == "system":
            text += _system(conversation, _EFFORT.sub(_strength_word, content))
        elif turn.role == "user":
            text += _message("user", content, _END)
        elif turn.role == "tool":
            text += _result(conversation, turn, content)
        elif turn.role == "assistant":
            goes_on = at + 1 < len(turns) and turns[at + 1].role == "assistant"
            text += _assistant(turn, content, _MORE if goes_on else _END)
    return f"{text}{_START}assistant"


def _message(header: str, content: str, end: str) -> str:
    return f"{_START}{header}{_MESSAGE}{content}{end}"


def _strength_word(match: re.Match[str]) -> str:
    word = match[0]
    return word[:10] + ("STRENGTH" if word.isupper() else "Strength" if word[10] == "E" else "strength")


def _system(conversation: Conversation, content: str) -> str:
    strength = "none" if conversation.think is False else conversation.think if isinstance(conversation.think, str) else "high"
    if "reasoning strength" not in plain(content).lower():
        content += f"\n\nReasoning strength: {strength}."
    spaces = list(dict.fromkeys(tool.name.partition(".")[0] for tool in conversation.tools))
    if conversation.tools:
        content += f"\n\n{_tools(conversation.tools, spaces)}"
    recipients = "".join(f', "{space}.*"' for space in spaces)
    return _message("system", f'{content}\n\n# Valid recipients: "self"{recipients}, "user".', _END)


def _tools(tools: tuple[Tool, ...], spaces: list[str]) -> str:
    metadata = "".join(f'{{"name": {string(space, html=False)}, "description": ""}}\n' for space in spaces)
    schemas = "".join(
        f'\n{{"name": {string(tool.name, html=False)}, "description": {string(tool.description, html=False)}, '
        f'"parameters": {tool_json(tool.parameters)}}}'
        for tool in tools
    )
    return f"{_BEFORE_TOOLS}{metadata}// Function schemas{schemas}{_AFTER_TOOLS}"


def _result(conversation: Conversation, turn: Turn, content: str) -> str:
    name = turn.tool_name or turn.tool_call_id
    if not turn.tool_name and turn.tool_call_id:
        for call in (call for other in conversation.turns for call in other.calls):
            name = call.name if call.id == turn.tool_call_id else name
    return _message(f"tool {name}", f'<tool_output name="{name}">\n{content}\n</tool_output>', _END)


def _assistant(turn: Turn, content: str, end: str) -> str:
    text = _message("assistant to=self", turn.thinking, _MORE) if turn.thinking else ""
    if not turn.calls:
        return text + (_message("assistant to=user", content, _END) if content or not turn.thinking else "")
    for at, call in enumerate(turn.calls):
        arguments = "".join(
            f'<atem:parameter name="{name}">{_value(value)}</atem:parameter>\n' for name, value in call.arguments.items()
        )
        body = f'<atem:function_calls>\n<atem:invoke name="{call.name}">\n{arguments}</atem:invoke>\n</atem:function_calls>'
        text += _message(f"assistant to={call.name}", body, end if at == len(turn.calls) - 1 else _MORE)
    return text


def _value(value: object) -> str:
    if value is None:
        return "null"
    return to_json(value, spaces=True, html=False) if isinstance(value, dict | list) else verb_v(value)
