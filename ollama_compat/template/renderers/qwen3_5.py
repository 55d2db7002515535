"""Qwen3.5, and the models with its form of conversation: Ornith, and Qwen3.8, which knows levels of reasoning."""

from __future__ import annotations

import dataclasses

from ollama_compat.gospace import SPACE
from ollama_compat.template.errors import TemplateError
from ollama_compat.template.renderers.chatml import END, START, XML_CALLS, block, last_query, tool_response
from ollama_compat.template.renderers.text import argument, plain, to_json, with_images
from ollama_compat.template.renderers.turns import Call, Conversation, Turn

_TOOLS = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
_XHIGH = (
    "Reasoning effort is set to xhigh. Please think carefully through the task, validate key assumptions, consider plausible "
    "alternatives, and prioritize correctness, consistency, and clarity in the final answer."
)
_LOW = (
    "Reasoning effort is set to low. Keep your thinking brief and focused, moving directly to the conclusion without unnecessary "
    "elaboration."
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Variant:
    always_reasoned: bool = False  # every answer of the assistant gets its block of reasoning
    is_38: bool = False


def qwen3_5(conversation: Conversation) -> str:
    """The prompt of Qwen3.5."""
    return _render(conversation, _Variant())


def ornith(conversation: Conversation) -> str:
    """The prompt of Ornith."""
    return _render(conversation, _Variant(always_reasoned=True))


def qwen3_8(conversation: Conversation) -> str:
    """The prompt of Qwen3.8. TemplateError for a conversation in which nobody asks anything."""
    conversation = dataclasses.replace(conversation, turns=_one_system(conversation.turns))
    _check(conversation.turns)
    return _render(conversation, _Variant(always_reasoned=True, is_38=True))


def _render(conversation: Conversation, variant: _Variant) -> str:
    turns, thinks = conversation.turns, conversation.thinks(default=True)
    text = _system(conversation, _effort(conversation) if variant.is_38 else "", variant)
    query, offset = last_query(turns, trim=True), 0
    for at, turn in enumerate(turns):
        content = with_images(turn.content, turn.images, offset).strip(SPACE)
        offset += turn.images
        if turn.role == "assistant":
            reasoned = variant.always_reasoned or (thinks and at > query)
            text += _assistant(turn, content, reasoned, variant) + ("" if at == len(turns) - 1 else f"{END}\n")
        elif turn.role == "tool":
            text += tool_response(turns, at, content)
        elif turn.role == "user" or (at != 0 if turn.role == "system" else variant.is_38):
            text += block(turn.role, content)
    if not turns or turns[-1].role == "assistant":
        return text
    return text + f"{START}assistant\n<think>\n" + ("" if thinks else "\n</think>\n\n")


def _system(conversation: Conversation, effort: str, variant: _Variant) -> str:
    first = conversation.turns[0] if conversation.turns else Turn("")
    has_system = first.role == "system"
    own = with_images(first.content, first.images, 0).strip(SPACE) if has_system else ""
    if conversation.tools:
        tools = "".join(f"\n{to_json(tool.json, spaces=True)}" for tool in conversation.tools)
        head = f"{effort}\n\n" if effort else ""
        return block("system", f"{head}{_TOOLS}{tools}\n</tools>{XML_CALLS}" + (f"\n\n{own}" if own else ""))
    if effort or own or (has_system and not variant.is_38):
        return block("system", "\n\n".join(part for part in (effort, own) if part))
    return ""


def _assistant(turn: Turn, content: str, reasoned: bool, variant: _Variant) -> str:
    reasoning, content = _split(turn, content, reasoned, variant)
    head = f"<think>\n{reasoning}\n</think>\n\n" if reasoned else ""
    calls = "\n".join(_call(call) for call in turn.calls)
    return f"{START}assistant\n{head}{content}" + ("\n\n" if calls and content.strip(SPACE) else "") + calls


def _split(turn: Turn, content: str, reasoned: bool, variant: _Variant) -> tuple[str, str]:
    """Reasoning and the rest; the reasoning may stand in the content, between tags."""
    if reasoned and turn.thinking:
        return turn.thinking.strip(SPACE), content
    if variant.is_38 or "</think>" not in content:
        return "", content
    before, _, rest = content.partition("</think>")
    return before.rpartition("<think>")[2].strip(SPACE), rest.lstrip("\n")


def _call(call: Call) -> str:
    arguments = "".join(f"<parameter={name}>\n{argument(value)}\n</parameter>\n" for name, value in call.arguments.items())
    return f"<tool_call>\n<function={call.name}>\n{arguments}</function>\n</tool_call>"


# ---------------------------------------------------------------- Qwen3.8


def _effort(conversation: Conversation) -> str:
    if conversation.think is False:
        return ""
    return {"low": _LOW, "medium": "", True: ""}.get(conversation.think or "", _XHIGH)


def _one_system(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The messages with all instructions in one, at the beginning."""
    told = [turn for turn in turns if turn.role in ("system", "developer")]
    for turn in told:
        if turn.images:
            raise TemplateError(f"{turn.role} message cannot contain images")
    if not told or (len(told) == 1 and turns[0].role == "system"):
        return turns
    texts = [text for turn in told if (text := turn.content.strip(SPACE))]
    return (Turn("system", "\n\n".join(texts)), *(turn for turn in turns if turn not in told))


def _check(turns: tuple[Turn, ...]) -> None:
    if not turns:
        raise TemplateError("no messages provided")
    for turn in turns:
        content = plain(with_images(turn.content, turn.images, 0)).strip(SPACE)
        if turn.role == "user" and not (content.startswith("<tool_response>") and content.endswith("</tool_response>")):
            return
    raise TemplateError("no user query found in messages")
