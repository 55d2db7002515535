"""DeepSeek V3.1."""

from __future__ import annotations

from ollama_compat.template.renderers.text import to_json
from ollama_compat.template.renderers.turns import Conversation, Tool, Turn, last_index

BOS = "<｜begin▁of▁sentence｜>"
_EOS = "<｜end▁of▁sentence｜>"
_USAGE = """
IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>\
{{additional_tool_calls}}<｜tool▁calls▁end｜>

Where:

- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
"""


def render(conversation: Conversation) -> str:
    """The prompt; the model reasons only when it is asked to."""
    turns, thinks = conversation.turns, conversation.thinks()
    text = BOS + "\n\n".join(turn.content for turn in turns if turn.role == "system")
    if conversation.tools:
        text += f"\n\n## Tools\nYou have access to the following tools:\n{''.join(map(_tool, conversation.tools))}{_USAGE}"
    last_user = last_index(turns, "user")
    before = ""  # the last role of the three that count
    for at, turn in enumerate(turns):
        if turn.role == "user":
            text += f"<｜User｜>{turn.content}"
        elif turn.role == "assistant":
            text += _assistant(turn, before, thinks and at > last_user)
        elif turn.role == "tool":
            text += f"<｜tool▁output▁begin｜>{turn.content}<｜tool▁output▁end｜>"
        before = turn.role if turn.role in ("user", "assistant", "tool") else before
    if before == "user":
        text += "<｜Assistant｜>" + ("<think>" if thinks else "</think>")
    return text


def _tool(tool: Tool) -> str:
    return f"\n### {tool.name}\nDescription: {tool.description}\n\nParameters: {to_json(tool.parameters)}\n"


def _assistant(turn: Turn, before: str, reasons: bool) -> str:
    opening = ""
    if before == "user":
        opening = "<｜Assistant｜>" + ("<think>" if reasons and turn.thinking and not turn.calls else "</think>")
    if turn.calls:
        calls = "".join(
            f"<｜tool▁call▁begin｜>{call.name}<｜tool▁sep｜>{to_json(call.arguments)}<｜tool▁call▁end｜>" for call in turn.calls
        )
        return f"{opening}{turn.content}<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>{_EOS}"
    content = turn.content
    if before != "tool" and "</think>" in content:
        content = content.partition("</think>")[2]
    return opening + content + _EOS
