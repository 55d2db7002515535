"""Command A and North by Cohere."""

from __future__ import annotations

from ollama_compat.template.renderers.text import string, to_json
from ollama_compat.template.renderers.turns import Conversation, Tool, Turn

BOS = "<BOS_TOKEN>"
_NO_TOOLS = "\n\n"
_TURN, _END = "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"


def render(conversation: Conversation) -> str:
    """The prompt; the model reasons unless it is told not to."""
    own, turns = conversation.split_system()
    text = _text("SYSTEM", (f"{own}\n\n\n\n" if own else "") + _tools(conversation.tools))
    ids = _CallIds()
    for at, turn in enumerate(turns):
        text += _turn(turns, at, turn, ids)
    last = turns[-1] if turns else Turn("")
    if last.role in ("assistant", "chatbot") and not last.calls:
        return text
    return f"{text}{_TURN}<|CHATBOT_TOKEN|><|START_THINKING|>" + ("" if conversation.thinks(default=True) else "<|END_THINKING|>")


class _CallIds:
    """Calls are counted through the whole conversation; results name the number of their call."""

    def __init__(self) -> None:
        self._count = 0
        self._known: dict[str, str] = {}

    def number(self, id: str) -> str:
        """The next number, for a call with this id."""
        number = str(self._count)
        self._count += 1
        if id:
            self._known.setdefault(id, number)
        return number

    def of(self, id: str) -> str:
        """The number of the call with this id; an unknown id stays."""
        return self._known.get(id, id)


def _text(speaker: str, content: str, closed: bool = True) -> str:
    return f"{_TURN}<|{speaker}_TOKEN|><|START_TEXT|>{content}" + (f"<|END_TEXT|>{_END}" if closed else "")


def _tools(tools: tuple[Tool, ...]) -> str:
    shown = "".join(f"\n    {_tool(tool)}{',' if at < len(tools) - 1 else ''}\n\n" for at, tool in enumerate(tools))
    return f"# Available Tools\n```json\n[\n{shown or _NO_TOOLS}\n]\n```"


def _tool(tool: Tool) -> str:
    described = f'"name": {string(tool.name)}, "description": {string(tool.description)}'
    return f'{{{described}, "parameters": {to_json(tool.parameters, spaces=True)}, "responses": null}}'


def _turn(turns: tuple[Turn, ...], at: int, turn: Turn, ids: _CallIds) -> str:
    if turn.role in ("system", "user"):
        return _text(turn.role.upper(), turn.content)
    if turn.role in ("assistant", "chatbot"):
        return _assistant(turn, at == len(turns) - 1, ids)
    return _result(turns, at, turn, ids) if turn.role == "tool" else ""


def _assistant(turn: Turn, is_last: bool, ids: _CallIds) -> str:
    reasoning = f"<|START_THINKING|>{turn.thinking}<|END_THINKING|>" if turn.thinking else ""
    if not turn.calls:
        closing = "" if is_last else f"<|END_TEXT|>{_END}"
        return f"{_TURN}<|CHATBOT_TOKEN|>{reasoning}<|START_TEXT|>{turn.content}{closing}"
    calls = ",".join(
        f'\n\n    {{"tool_call_id": "{ids.number(call.id)}", "tool_name": "{call.name}", '
        f'"parameters": {to_json(call.arguments, spaces=True)}}}'
        for call in turn.calls
    )
    space = "\n            \n                "
    return f"{_TURN}<|CHATBOT_TOKEN|>{space}{reasoning}<|START_ACTION|>[{calls}\n\n]<|END_ACTION|>{_END}"


def _result(turns: tuple[Turn, ...], at: int, turn: Turn, ids: _CallIds) -> str:
    """A tool's result; neighbouring ones stand in one list."""
    opens = at == 0 or turns[at - 1].role != "tool"
    closes = at == len(turns) - 1 or turns[at + 1].role != "tool"
    content = to_json({"content": turn.content}, spaces=True)
    entry = (
        f'\n    {{\n        "tool_call_id": "{ids.of(turn.tool_call_id)}",\n        "results": {{\n\n            \n'
        f'            "0": {content}\n\n        }},\n        "is_error": null\n    }}'
    )
    head = f"{_TURN}<|SYSTEM_TOKEN|><|START_TOOL_RESULT|>[" if opens else ","
    return head + entry + (f"\n\n]<|END_TOOL_RESULT|>{_END}" if closes else "")
