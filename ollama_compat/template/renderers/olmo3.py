"""Olmo 3 and 3.1; the thinking ones know no tools."""

from __future__ import annotations

from ollama_compat.template.renderers.chatml import END, START, block
from ollama_compat.template.renderers.text import to_json
from ollama_compat.template.renderers.turns import Call, Conversation, Turn

_HELPFUL = "You are a helpful function-calling AI assistant. "
_OLMO = (
    "You are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is December 2024, and your model weights are available "
    "at https://huggingface.co/allenai."
)
_NO_FUNCTIONS = "You do not currently have access to any functions. "
_FUNCTIONS = (
    "You are provided with function signatures within <functions></functions> XML tags. You may call one or more functions to "
    "assist with the user query. Output any function calls within <function_calls></function_calls> XML tags. Do not make "
    "assumptions about what values to plug into functions."
)


def olmo3(conversation: Conversation) -> str:
    """The prompt of Olmo 3."""
    return _render(conversation, _HELPFUL)


def olmo3_1(conversation: Conversation) -> str:
    """The prompt of Olmo 3.1."""
    return _render(conversation, _OLMO + " ")


def think(conversation: Conversation) -> str:
    """The prompt of the thinking models, 3.1 and the 7B of 3."""
    return _think(conversation, _OLMO)


def think_32b(conversation: Conversation) -> str:
    """The prompt of the thinking 32B of Olmo 3."""
    return _think(conversation, "You are a helpful AI assistant.")


def _render(conversation: Conversation, identity: str) -> str:
    turns = conversation.without_system()
    own = next((turn.content for turn in conversation.turns if turn.role == "system"), None)
    text = block("system", _system(conversation, identity, own))
    text += "".join(_turn(turn, at == len(turns) - 1) for at, turn in enumerate(turns))
    last = turns[-1] if turns else Turn("")
    prefilled = last.role == "assistant" and not last.calls and last.content
    return text if prefilled else text + f"{START}assistant\n"


def _system(conversation: Conversation, identity: str, own: str | None) -> str:
    tools = to_json([tool.json for tool in conversation.tools], spaces=True) if conversation.tools else ""
    if own is not None:
        return own + (f"<functions>{tools}</functions>" if tools else "")
    return identity + (_FUNCTIONS if tools else _NO_FUNCTIONS) + f"<functions>{tools}</functions>"


def _turn(turn: Turn, is_last: bool) -> str:
    if turn.role == "assistant":
        calls = f"<function_calls>{chr(10).join(map(_call, turn.calls))}</function_calls>" if turn.calls else ""
        return f"{START}assistant\n{turn.content}{calls}" + ("" if is_last and not turn.calls else f"{END}\n")
    shown = {"user": "user", "tool": "environment"}.get(turn.role)
    return block(shown, turn.content) if shown else ""


def _call(call: Call) -> str:
    return f"{call.name}({', '.join(f'{name}={to_json(call.arguments[name])}' for name in sorted(call.arguments))})"


def _think(conversation: Conversation, identity: str) -> str:
    own = next((turn.content for turn in conversation.turns if turn.role == "system"), None)
    text = block("system", identity if own is None else f"{own} {_NO_FUNCTIONS}<functions></functions>")
    text += "".join(block(turn.role, turn.content) for turn in conversation.turns if turn.role in ("user", "assistant"))
    return f"{text}{START}assistant\n<think>"
