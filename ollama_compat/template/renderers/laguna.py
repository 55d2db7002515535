"""Laguna by Poolside, in two versions of its form."""

from __future__ import annotations

from ollama_compat.gospace import SPACE
from ollama_compat.template.renderers.text import argument_json, to_json
from ollama_compat.template.renderers.turns import Conversation, Turn

BOS = "〈|EOS|〉"
_IDENTITY = (
    "You are a helpful, conversationally-fluent assistant made by Poolside. You are here to be helpful to users through natural "
    "language conversations."
)
_TOOLS = """### Tools

You may call functions to assist with the user query.
All available function signatures are listed below:
<available_tools>
"""
_CALL = (
    "or each function call, return an unescaped XML-like object with function name and arguments within '<tool_call>' and "
    "'</tool_call>' tags, like here:\n"
)
_EXAMPLE = "<tool_call>function-name\n<arg_key>argument-key</arg_key>\n<arg_value>value-of-argument-key</arg_value>\n</tool_call>"
_THOUGHT = "<think> your thoughts here </think>\n"


def laguna(conversation: Conversation) -> str:
    """The prompt of the first version; the model reasons only when it is asked to."""
    turns, thinks = _turns(conversation), conversation.thinks()
    text = BOS + _system(conversation, thinks)
    for at, turn in enumerate(turns):
        text += _assistant(turn, at == len(turns) - 1) if turn.role == "assistant" else _block(turn, "\n")
    last = conversation.turns[-1].role if conversation.turns else ""
    return text if last == "assistant" else f"{text}<assistant>\n" + ("<think>" if thinks else "</think>")


def poolside_v1(conversation: Conversation) -> str:
    """The prompt of the later version."""
    thinks = conversation.thinks()
    own = _own(conversation)
    parts = [own.rstrip(SPACE)] if own.strip(SPACE) else []
    if conversation.tools:
        parts.append(_listed(conversation))
    text = BOS + (f"<system>{(chr(10) * 2).join(parts)}</system>\n" if parts or thinks else "")
    for turn in _turns(conversation):
        text += _assistant_v1(turn, thinks) if turn.role == "assistant" else _block(turn, "")
    return f"{text}<assistant>" + ("<think>" if thinks else "</think>")


def _own(conversation: Conversation) -> str:
    """The system text: the conversation's, even an empty one, or the model's identity."""
    first = conversation.turns[0] if conversation.turns else Turn("")
    return first.content if first.role == "system" else _IDENTITY


def _turns(conversation: Conversation) -> tuple[Turn, ...]:
    return conversation.split_system()[1]


def _listed(conversation: Conversation) -> str:
    tools = "".join(f"{to_json(tool.json, spaces=True)}\n" for tool in conversation.tools)
    return f"{_TOOLS}{tools}</available_tools>"


def _system(conversation: Conversation, thinks: bool) -> str:
    own = _own(conversation)
    text = f"\n{own.rstrip(SPACE)}" if own.strip(SPACE) else ""
    if conversation.tools:
        how = (
            f"Wrap your thinking in '<think>', '</think>' tags, followed by a function call. F{_CALL}{_THOUGHT}"
            if thinks
            else f"F{_CALL}"
        )
        text += f"\n\n{_listed(conversation)}\n\n{how}{_EXAMPLE}"
    return f"<system>\n{text}\n</system>\n" if text else ""


def _block(turn: Turn, space: str) -> str:
    tag = {"user": "user", "tool": "tool_response", "system": "system"}.get(turn.role)
    return f"<{tag}>{space}{turn.content}{space}</{tag}>\n" if tag else ""


def _assistant(turn: Turn, is_last: bool) -> str:
    content, reasoning = _split(turn)
    content, reasoning = content.strip(SPACE), reasoning.strip(SPACE)
    text = f"<think>\n{reasoning}\n</think>\n" if reasoning else "</think>\n"
    text += f"{content}\n" if content else ""
    text += _calls(turn, "\n")
    stays_open = is_last and (content or reasoning or turn.calls)
    return f"<assistant>\n{text}" + ("" if stays_open else "</assistant>\n")


def _split(turn: Turn) -> tuple[str, str]:
    """Content and reasoning, which may stand in the content as well."""
    if "</think>" not in turn.content:
        return turn.content, turn.thinking
    before = turn.content.partition("</think>")[0].rstrip("\n")
    inside = before.rpartition("<think>")[2].lstrip("\n")
    return turn.content.rpartition("</think>")[2].lstrip("\n"), turn.thinking or inside


def _assistant_v1(turn: Turn, thinks: bool) -> str:
    reasoning = f"<think>{turn.thinking}</think>" if thinks else "</think>"
    return f"<assistant>{reasoning}{turn.content}{_calls(turn, '')}</assistant>\n"


def _calls(turn: Turn, space: str) -> str:
    text = ""
    for call in turn.calls:
        arguments = "".join(
            f"<arg_key>{name}</arg_key>{space}<arg_value>{argument_json(value, spaces=True)}</arg_value>{space}"
            for name, value in call.arguments.items()
        )
        text += f"<tool_call>{call.name}{space}{arguments}</tool_call>{space}"
    return text
