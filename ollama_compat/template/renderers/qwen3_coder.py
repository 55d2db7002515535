"""Qwen3-Coder: tools and calls in XML."""

from __future__ import annotations

from typing import Any

from ollama_compat.template.renderers.chatml import END, START, XML_CALLS, block, tool_response
from ollama_compat.template.renderers.text import argument, to_json, verb_v
from ollama_compat.template.renderers.turns import Call, Conversation, Tool, Turn, any_value

_DEFAULT_SYSTEM = "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks."


def render(conversation: Conversation) -> str:
    """The prompt. Of several system messages the first that says something counts."""
    system = next((turn.content for turn in conversation.turns if turn.role == "system" and turn.content), "")
    turns = conversation.without_system()
    text = ""
    if system or conversation.tools:
        tools = (
            f"\n\n# Tools\n\nYou have access to the following functions:\n\n{_tools(conversation.tools)}"
            if conversation.tools
            else ""
        )
        text = block("system", (system or _DEFAULT_SYSTEM) + tools)
    for at, turn in enumerate(turns):
        text += _turn(turns, at, turn)
    return text if not turns or turns[-1].role == "assistant" else text + f"{START}assistant\n"


def _turn(turns: tuple[Turn, ...], at: int, turn: Turn) -> str:
    if turn.role == "tool":
        return tool_response(turns, at, turn.content)
    if turn.role != "assistant":
        return block(turn.role, turn.content)
    if turn.calls:
        said = f"{turn.content}\n" if turn.content else ""
        return block("assistant", said + "".join(_call(call) for call in turn.calls))
    return f"{START}assistant\n{turn.content}" + ("" if at == len(turns) - 1 else f"{END}\n")


def _call(call: Call) -> str:
    arguments = "".join(f"\n<parameter={name}>\n{argument(value)}\n</parameter>" for name, value in call.arguments.items())
    return f"\n<tool_call>\n<function={call.name}>{arguments}\n</function>\n</tool_call>"


def _tools(tools: tuple[Tool, ...]) -> str:
    return f"<tools>{''.join(_tool(tool) for tool in tools)}\n</tools>{XML_CALLS}"


def _tool(tool: Tool) -> str:
    described = f"\n<description>{tool.description}</description>" if tool.description else ""
    parameters = "".join(_parameter(name, data) for name, data in tool.properties.items())
    rest = _others(tool.parameters, "type", "properties")
    return f"\n<function>\n<name>{tool.name}</name>{described}\n<parameters>{parameters}{rest}\n</parameters>\n</function>"


def _parameter(name: str, data: dict[str, Any]) -> str:
    kind = data.get("type")
    typed = f"\n<type>{kind if isinstance(kind, str) else to_json(kind)}</type>" if kind else ""
    described = f"\n<description>{data['description']}</description>" if data.get("description") else ""
    return f"\n<parameter>\n<name>{name}</name>{typed}{described}{_others(data, 'type', 'description')}\n</parameter>"


def _others(data: dict[str, Any], *known: str) -> str:
    """The other keys, in the order of the type; Ollama writes them in random order."""
    found = ((key, any_value(value)) for key, value in data.items() if key not in known and value is not None)
    return "".join(
        f"\n<{key}>{to_json(value) if isinstance(value, dict | list) else verb_v(value)}</{key}>" for key, value in found
    )
