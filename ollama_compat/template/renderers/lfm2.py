"""LFM2 and LFM2.5."""

from __future__ import annotations

from ollama_compat.gospace import SPACE
from ollama_compat.template.renderers.chatml import END, START, block
from ollama_compat.template.renderers.text import plain, to_json, tool_json, with_images
from ollama_compat.template.renderers.turns import Call, Conversation, Tool, Turn, last_index

BOS = "<|startoftext|>"
_CALL = "<|tool_call_start|>"
_RESULT, _RESULT_END = "<|tool_response_start|>", "<|tool_response_end|>"


def instruct(conversation: Conversation) -> str:
    """The prompt of the models that answer at once."""
    return _render(conversation, thinking=False)


def thinking(conversation: Conversation) -> str:
    """The prompt of the models that may reason; they do so unasked, and see old reasoning only on demand."""
    return _render(conversation, thinking=True)


def _render(conversation: Conversation, thinking: bool) -> str:
    own, turns = conversation.split_system()
    offset = conversation.turns[0].images if len(turns) < len(conversation.turns) else 0
    system = own + ("\n" if own and conversation.tools else "") + _tools(conversation.tools)
    text = BOS + (block("system", system) if system else "")
    keeps_all = thinking and conversation.thinks()
    last_said = last_index(turns, "assistant")
    for at, turn in enumerate(turns):
        content = with_images(turn.content, turn.images, offset)
        offset += turn.images
        if turn.role == "assistant":
            content = _assistant(turn, content, thinking, forgets=not keeps_all and at != last_said)
        elif turn.role == "tool" and _RESULT not in plain(content):
            content = _RESULT + content + _RESULT_END
        is_prefill = turn.role == "assistant" and at == len(turns) - 1
        text += f"{START}{turn.role}\n{content}" + ("" if is_prefill else f"{END}\n")
    return text if conversation.turns and conversation.turns[-1].role == "assistant" else text + f"{START}assistant\n"


def _tools(tools: tuple[Tool, ...]) -> str:
    if not tools:
        return ""
    shown = (tool_json(tool.function if tool.name else tool.json) for tool in tools)
    return f"List of tools: <|tool_list_start|>[{', '.join(shown)}]<|tool_list_end|>"


def _assistant(turn: Turn, content: str, thinking: bool, forgets: bool) -> str:
    if turn.calls and _CALL not in content:
        content = _calls(turn.calls) + ("\n" if content.strip(SPACE) else "") + content
    if thinking and turn.thinking and "</think>" not in content:
        content = f"<think>{turn.thinking}</think>{content}"
    if forgets and "</think>" in content:
        content = content.rpartition("</think>")[2].strip(SPACE)
    return content


def _calls(calls: tuple[Call, ...]) -> str:
    return f"{_CALL}[{','.join(map(_call, calls))}]<|tool_call_end|>"


def _call(call: Call) -> str:
    arguments = (f"{name}={to_json(call.arguments[name], spaces=True, html=False)}" for name in sorted(call.arguments))
    return f"{call.name}({','.join(arguments)})"
