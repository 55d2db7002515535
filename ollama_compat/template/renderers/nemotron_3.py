"""Nemotron 3 and 3.5 Nano."""

from __future__ import annotations

from typing import Any

from ollama_compat.gospace import SPACE
from ollama_compat.template.gotemplate.floats import format_json
from ollama_compat.template.gotemplate.literals import quote
from ollama_compat.template.renderers.chatml import END, START, XML_CALLS, block
from ollama_compat.template.renderers.text import plain, verb_v, with_images
from ollama_compat.template.renderers.turns import Call, Conversation, Tool, Turn, last_index
from runtime.frames import BREAK


def nemotron_3(conversation: Conversation) -> str:
    """The prompt of Nemotron 3. `/think` and `/no_think` in the text switch its reasoning."""
    return _render(conversation, _toggled(conversation), is_35=False)


def nemotron_3_5(conversation: Conversation) -> str:
    """The prompt of Nemotron 3.5."""
    return _render(conversation, conversation.thinks(default=True), is_35=True)


def _render(conversation: Conversation, thinks: bool, is_35: bool) -> str:
    own, turns = conversation.split_system()
    own = own if is_35 else _without_toggles(own)
    tools = _tools(conversation.tools) if conversation.tools else ""
    text = block("system", own + ("\n\n" if own and tools else "") + tools)
    last_user, offset = last_index(turns, "user"), 0
    for at, turn in enumerate(turns):
        if turn.role == "assistant":
            text += _assistant(turn, at < last_user, is_35)
            continue
        effort = is_35 and conversation.think == "medium" and turn.role == "user" and at == last_user
        text += _turn(turns, at, offset, is_35) + ("\n\n{reasoning effort: efficient}" if effort else "")
        text += "" if turn.role == "tool" and _is_tool(turns, at + 1) else f"{END}\n"
        offset += turn.images if turn.role in ("user", "system", "tool") else 0
    return f"{text}{START}assistant\n<think>" + ("\n" if thinks else "</think>")


def _turn(turns: tuple[Turn, ...], at: int, offset: int, is_35: bool) -> str:
    """A message that is not the assistant's, without its end."""
    turn = turns[at]
    content = with_images(turn.content, turn.images, offset)
    if turn.role == "tool":
        opening = f"{START}user\n" if at > 0 and not _is_tool(turns, at - 1) else ""
        return f"{opening}<tool_response>\n{content}\n</tool_response>\n"
    if turn.role in ("user", "system"):
        content = content if is_35 else _without_toggles(content).strip(SPACE)
        return f"{START}{turn.role}\n{content}"
    return f"{START}{turn.role}\n{turn.content}"


def _is_tool(turns: tuple[Turn, ...], at: int) -> bool:
    return at < len(turns) and turns[at].role == "tool"


def _assistant(turn: Turn, forgets: bool, is_35: bool) -> str:
    content = _with_reasoning(turn, is_35)
    if turn.calls:
        return block("assistant", _before_calls(content, forgets) + "".join(map(_call, turn.calls)))
    if forgets and "<think>" in content and "</think>" in content:
        content = "<think></think>" + content.rpartition("</think>")[2]
    return block("assistant", content.strip(SPACE))


def _with_reasoning(turn: Turn, is_35: bool) -> str:
    if turn.thinking:
        end = "</think>" if is_35 else "\n</think>\n"
        return f"<think>\n{turn.thinking}{end}{turn.content}"
    has_tags = "<think>" in turn.content or "</think>" in turn.content
    return turn.content if has_tags else f"<think></think>{turn.content}"


def _before_calls(content: str, forgets: bool) -> str:
    if not content.strip(SPACE):
        return "<think></think>"
    if not forgets:
        return content.strip(SPACE) + "\n"
    kept = content.rpartition("</think>")[2] if "</think>" in content else content.partition("<think>")[0]
    return f"<think></think>{kept.strip(SPACE)}\n"


def _call(call: Call) -> str:
    arguments = "".join(f"<parameter={name}>\n{_value(value)}\n</parameter>\n" for name, value in call.arguments.items())
    return f"<tool_call>\n<function={call.name}>\n{arguments}</function>\n</tool_call>\n"


# ---------------------------------------------------------------- reasoning


def _toggled(conversation: Conversation) -> bool:
    """Whether it reasons: the last word that the text has on it counts."""
    thinks = conversation.thinks(default=True)
    for turn in conversation.turns:
        if turn.role in ("user", "system"):
            content = plain(turn.content)
            if "/think" in content.replace("</think>", ""):
                thinks = True
            elif "/no_think" in content:
                thinks = False
    return thinks


def _without_toggles(text: str) -> str:
    kept = text.replace("</think>", "<_end_think>").replace("/think", "").replace("/no_think", "")
    return kept.replace("<_end_think>", "</think>")


# ---------------------------------------------------------------- tools


def _tools(tools: tuple[Tool, ...]) -> str:
    head = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
    return f"{head}{''.join(map(_tool, tools))}\n</tools>{XML_CALLS}"


def _tool(tool: Tool) -> str:
    described = f"\n<description>{tool.description.strip(SPACE)}</description>" if tool.description else ""
    parameters = "".join(_parameter(name, data) for name, data in tool.properties.items())
    for key in ("$defs", "items"):
        if key in tool.parameters:
            parameters += f"\n<{key}>{_value(tool.parameters[key])}</{key}>"
    parameters += _element(tool.parameters, "required")
    return f"\n<function>\n<name>{tool.name}</name>{described}\n<parameters>{parameters}\n</parameters>\n</function>"


def _parameter(name: str, data: dict[str, Any]) -> str:
    text = f"\n<name>{name}</name>"
    if kind := data.get("type"):
        quoted = kind if isinstance(kind, str) else f"[{', '.join(_single_quoted(each) for each in kind)}]"
        text += f"\n<type>{quoted}</type>"
    if data.get("description"):
        text += f"\n<description>{data['description'].strip(SPACE)}</description>"
    return f"\n<parameter>{text}{_element(data, 'enum', 'anyOf', 'items', 'properties', 'required')}\n</parameter>"


def _element(data: dict[str, Any], *keys: str) -> str:
    return "".join(f"\n<{key}>{_json(data[key])}</{key}>" for key in keys if key in data)


def _single_quoted(name: str) -> str:
    return f"'{name}'"


def _value(value: Any) -> str:
    """As Python's str() prints it, but JSON for what has parts."""
    if isinstance(value, dict | list):
        return _json(value)
    if value is None or isinstance(value, bool):
        return str(value)
    return verb_v(value)


def _json(value: Any) -> str:
    """JSON with spaces, strings quoted as Go quotes them."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_quote(key)}: {_json(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_json, value))}]"
    if isinstance(value, str):
        return _quote(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return format_json(value)


def _quote(text: str) -> str:
    return f'"{BREAK.join(quote(part)[1:-1] for part in text.split(BREAK))}"'
