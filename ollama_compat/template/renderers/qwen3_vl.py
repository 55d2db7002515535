"""Qwen3-VL: calls as JSON, pictures as places in the text."""

from __future__ import annotations

from ollama_compat.template.renderers.chatml import END, START, block, last_query, tool_response
from ollama_compat.template.renderers.text import to_json, with_images
from ollama_compat.template.renderers.turns import Call, Conversation, Turn

_TOOLS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>"""
_CALLS = """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""


def instruct(conversation: Conversation) -> str:
    """The prompt of the models that answer at once."""
    return _render(conversation, conversation.thinks(default=False))


def thinking(conversation: Conversation) -> str:
    """The prompt of the models that reason first."""
    return _render(conversation, conversation.thinks(default=True))


def _render(conversation: Conversation, thinks: bool) -> str:
    turns = conversation.turns
    text = _system(conversation)
    query, offset = last_query(turns, trim=False), 0
    for at, turn in enumerate(turns):
        content = with_images(turn.content, turn.images, offset)
        offset += turn.images
        if turn.role == "user" or (turn.role == "system" and at != 0):
            text += block(turn.role, content)
        elif turn.role == "assistant":
            said = _reasoned(turn, content, at == len(turns) - 1) if thinks and at > query else content
            calls = _calls(turn.calls, apart=bool(content))
            text += f"{START}assistant\n{said}{calls}" + ("" if at == len(turns) - 1 else f"{END}\n")
        elif turn.role == "tool":
            text += tool_response(turns, at, content)
    if not turns or turns[-1].role == "assistant":
        return text
    return text + f"{START}assistant\n" + ("<think>\n" if thinks else "")


def _system(conversation: Conversation) -> str:
    turns = conversation.turns
    own = turns[0].content if turns and turns[0].role == "system" else None
    if conversation.tools:
        tools = "".join(f"\n{to_json(tool.json, spaces=True)}" for tool in conversation.tools)
        return block("system", ("" if own is None else f"{own}\n\n") + _TOOLS + tools + _CALLS)
    return "" if own is None else block("system", own)


def _reasoned(turn: Turn, content: str, is_last: bool) -> str:
    """What the assistant said since the last question, with its reasoning."""
    if not is_last and not turn.thinking:
        return content
    reasoning = "<think>\n" + turn.thinking.strip("\n")
    return reasoning + (f"\n</think>\n\n{content.lstrip(chr(10))}" if content else "")


def _calls(calls: tuple[Call, ...], apart: bool) -> str:
    texts = [
        f'<tool_call>\n{{"name": "{call.name}", "arguments": {to_json(call.arguments, spaces=True)}}}\n</tool_call>'
        for call in calls
    ]
    return ("\n" if texts and apart else "") + "\n".join(texts)
