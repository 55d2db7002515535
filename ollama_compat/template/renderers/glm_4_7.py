"""GLM-4.7, and GLM-OCR with its pictures."""

from __future__ import annotations

from ollama_compat.gospace import SPACE
from ollama_compat.template.renderers.text import argument_json, plain, to_json, with_images
from ollama_compat.template.renderers.turns import Call, Conversation, Turn

_HEAD = "[gMASK]<sop>"
_TOOLS = """<|system|>
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
_CALLS = (
    "</tools>\n\nFor each function call, output the function name and arguments within the following XML format:\n"
    "<tool_call>{function-name}<arg_key>{arg-key-1}</arg_key><arg_value>{arg-value-1}</arg_value><arg_key>{arg-key-2}</arg_key>"
    "<arg_value>{arg-value-2}</arg_value>...</tool_call>"
)


def glm_4_7(conversation: Conversation) -> str:
    """The prompt of GLM-4.7, which reasons unless it is told not to and is shown all its earlier reasoning."""
    text = _HEAD + _tools(conversation)
    for at, turn in enumerate(conversation.turns):
        text += _turn(conversation.turns, at, turn)
    return f"{text}<|assistant|>" + ("<think>" if conversation.thinks(default=True) else "</think>")


def glm_ocr(conversation: Conversation) -> str:
    """The prompt of GLM-OCR."""
    off = conversation.think is False
    text, offset = _HEAD + _tools(conversation), 0
    for at, turn in enumerate(conversation.turns):
        content = turn.content
        if turn.role in ("user", "tool"):
            content = with_images(content, turn.images, offset)
            offset += turn.images
        text += _ocr_turn(conversation.turns, at, content, off)
    return f"{text}<|assistant|>\n" + ("<think></think>\n" if off else "")


def _tools(conversation: Conversation) -> str:
    tools = "".join(f"{to_json(tool.json, spaces=True)}\n" for tool in conversation.tools)
    return _TOOLS + tools + _CALLS if tools else ""


def _turn(turns: tuple[Turn, ...], at: int, turn: Turn) -> str:
    if turn.role == "assistant":
        reasoning = f"<think>{turn.thinking}</think>" if turn.thinking else "</think>"
        return f"<|assistant|>{reasoning}{turn.content}" + "".join(map(_call, turn.calls))
    if turn.role == "tool":
        return _observation(turns, at) + f"<tool_response>{turn.content}</tool_response>"
    return f"<|{turn.role}|>{turn.content}" if turn.role in ("user", "system") else ""


def _ocr_turn(turns: tuple[Turn, ...], at: int, content: str, off: bool) -> str:
    turn = turns[at]
    if turn.role == "assistant":
        said = f"\n{content.strip(SPACE)}" if content else ""
        calls = "".join(f"\n{_call(call)}" for call in turn.calls)
        return f"<|assistant|>\n<think>{turn.thinking.strip(SPACE)}</think>{said}{calls}\n"
    if turn.role == "tool":
        return _observation(turns, at) + f"\n<tool_response>\n{content}\n</tool_response>\n"
    if turn.role == "user":
        return f"<|user|>\n{content}" + ("/nothink" if off and not plain(turn.content).endswith("/nothink") else "")
    return f"<|system|>\n{content}\n" if turn.role == "system" else ""


def _observation(turns: tuple[Turn, ...], at: int) -> str:
    """Neighbouring results of tools stand under one heading."""
    return "<|observation|>" if at == 0 or turns[at - 1].role != "tool" else ""


def _call(call: Call) -> str:
    arguments = "".join(
        f"<arg_key>{name}</arg_key><arg_value>{argument_json(value)}</arg_value>" for name, value in call.arguments.items()
    )
    return f"<tool_call>{call.name}{arguments}</tool_call>"
