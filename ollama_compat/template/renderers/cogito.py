"""Cogito."""

from __future__ import annotations

from ollama_compat.template.renderers.text import indented, to_json
from ollama_compat.template.renderers.turns import Conversation, Turn

BOS = "<｜begin▁of▁sentence｜>"
_EOS = "<｜end▁of▁sentence｜>"
_IDENTITY = "You are Cogito, an AI assistant created by Deep Cogito, which is an AI research lab based in San Francisco."
_DEEP = "Enable deep thinking subroutine.\n\n"


def render(conversation: Conversation) -> str:
    """The prompt; the model reasons only when it is asked to."""
    thinks = conversation.thinks()
    own, turns = conversation.split_system()
    text = BOS + (_DEEP if thinks else "") + _IDENTITY
    text += (f"\n\n{own}" + ("\n\n" if thinks else "")) if own else ""
    if conversation.tools:
        text += "\nYou have the following functions available:\n"
        text += "".join(f"```json\n{indented(tool.json)}\n```\n" for tool in conversation.tools)
    for at, turn in enumerate(turns):
        text += _turn(turns, at, turn)
    last = next((turn.role for turn in reversed(turns) if turn.role in ("user", "assistant", "tool")), "")
    return text + ("" if last == "user" else "<｜Assistant｜>") + ("<think>\n" if thinks else "")


def _turn(turns: tuple[Turn, ...], at: int, turn: Turn) -> str:
    if turn.role == "user":
        return f"<｜User｜>{turn.content}<｜Assistant｜>"
    if turn.role == "assistant":
        return turn.content + _calls(turn) + _EOS
    if turn.role == "tool":
        opens = at == 0 or turns[at - 1].role != "tool"
        closes = at == len(turns) - 1 or turns[at + 1].role != "tool"
        result = f"<｜tool▁output▁begin｜>{turn.content}<｜tool▁output▁end｜>"
        return ("<｜tool▁outputs▁begin｜>" if opens else "") + result + ("<｜tool▁outputs▁end｜>" if closes else "\n")
    return ""


def _calls(turn: Turn) -> str:
    texts = [
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call.name}\n```json\n{to_json(call.arguments)}\n```<｜tool▁call▁end｜>"
        for call in turn.calls
    ]
    return f"<｜tool▁calls▁begin｜>{chr(10).join(texts)}<｜tool▁calls▁end｜>" if texts else ""
