"""FunctionGemma."""

from __future__ import annotations

from typing import Any

from ollama_compat.gospace import SPACE
from ollama_compat.template.renderers.gemma_values import described, mapping, value
from ollama_compat.template.renderers.text import plain
from ollama_compat.template.renderers.turns import Call, Conversation, Tool, Turn

BOS = "<bos>"
_ESCAPE = "<escape>"
_FUNCTIONS = "You can do function calling with the following functions:"
_NULL = "<nil>"


def render(conversation: Conversation) -> str:
    """The prompt."""
    own, turns = conversation.split_system("system", "developer")
    text, before = BOS + _developer(own, conversation.tools), ""
    for at, turn in enumerate(turns):
        shown, before = _turn(turns, at, turn, before)
        text += shown
    return text if before == "tool_response" else text + "<start_of_turn>model\n"


def _developer(own: str, tools: tuple[Tool, ...]) -> str:
    if not own and not tools:
        return ""
    text = own.strip(SPACE)
    if tools:
        text += ("\n" if own else "") + ("" if plain(own).strip(SPACE) == _FUNCTIONS else _FUNCTIONS)
    return f"<start_of_turn>developer\n{text}{''.join(map(_declaration, tools))}<end_of_turn>\n"


def _turn(turns: tuple[Turn, ...], at: int, turn: Turn, before: str) -> tuple[str, str]:
    """The text of a message, and what it was to the next one. `before`: what the last one was."""
    if turn.role == "tool":
        opening = "" if before == "tool_call" else "<start_function_response>"
        result = f"response:{_called(turns, at)}{{{value(turn.content, _ESCAPE)}}}<end_function_response>"
        return opening + result, "tool_response"
    content = turn.content.strip(SPACE)
    if turn.role not in ("user", "assistant"):
        return f"<start_of_turn>{turn.role}\n{content}<end_of_turn>\n", before
    speaker = "model" if turn.role == "assistant" else "user"
    opening = "" if before == "tool_response" else f"<start_of_turn>{speaker}\n"
    calls = "".join(map(_call, turn.calls)) if turn.role == "assistant" else ""
    if calls and at + 1 < len(turns) and turns[at + 1].role == "tool":
        return f"{opening}{content}{calls}<start_function_response>", "tool_call"
    return f"{opening}{content}{calls}<end_of_turn>\n", ""


def _called(turns: tuple[Turn, ...], at: int) -> str:
    """The name of the tool whose result is at `at`: by its place behind the last calls."""
    for start in range(at - 1, -1, -1):
        if turns[start].role == "assistant" and turns[start].calls:
            place = sum(turn.role == "tool" for turn in turns[start + 1 : at])
            return turns[start].calls[place].name if place < len(turns[start].calls) else ""
    return ""


def _call(call: Call) -> str:
    return f"<start_function_call>call:{call.name}{mapping(call.arguments, _ESCAPE, null=_NULL)}<end_function_call>"


def _declaration(tool: Tool) -> str:
    properties = ",".join(_property(name, tool.properties[name]) for name in sorted(tool.properties))
    body = described(tool, properties if tool.properties else None, _ESCAPE)
    return f"<start_function_declaration>declaration:{tool.name}{body}<end_function_declaration>"


def _property(name: str, data: dict[str, Any]) -> str:
    kind = data.get("type") or ""
    first = kind if isinstance(kind, str) else kind[0]
    typed = f",type:{_ESCAPE}{first.upper()}{_ESCAPE}" if first else ""
    return f"{name}:{{description:{_ESCAPE}{data.get('description', '')}{_ESCAPE}{typed}}}"
