"""Gemma 4, small and large."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_compat.gospace import SPACE
from ollama_compat.template.renderers import gemma4_tools
from ollama_compat.template.renderers.gemma4_tools import QUOTE
from ollama_compat.template.renderers.gemma_values import mapping, value
from ollama_compat.template.renderers.text import with_images
from ollama_compat.template.renderers.turns import Call, Conversation, Turn, last_index

BOS = "<bos>"
_END = "<turn|>\n"


def small(conversation: Conversation) -> str:
    """The prompt of e2b and e4b."""
    return _render(conversation, "")


def large(conversation: Conversation) -> str:
    """The prompt of 12b and up: an empty block of reasoning, where there is to be none."""
    return _render(conversation, "<|channel>thought\n<channel|>")


def _render(conversation: Conversation, no_thought: str) -> str:
    own, turns = conversation.split_system("system", "developer")
    thinks = conversation.thinks()
    text = BOS
    if len(turns) < len(conversation.turns) or conversation.tools or thinks:
        tools = "".join(map(gemma4_tools.declaration, conversation.tools))
        text += "<|turn>system\n" + ("<|think|>\n" if thinks else "") + own.strip(SPACE) + tools + _END
    body = _Body(turns)
    text += body.render()
    if body.ended_with == "tool_response":
        return text + ("<|channel>thought\n" if thinks else "")
    return text if body.ended_with == "tool_call" else text + "<|turn>model\n" + ("" if thinks else no_thought)


class _Body:
    """The messages behind the system's. Results of tools are part of the assistant's message before them, and its neighbouring
    messages are one turn."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = turns
        self._last_user = last_index(turns, "user")
        self._images = 0  # that have a place
        self._before = ""  # the role before, tools left out
        self.ended_with = ""  # "tool_call", "tool_response", or something else

    def render(self) -> str:
        """The text of all messages."""
        return "".join(self._turn(at, turn) for at, turn in enumerate(self._turns) if turn.role != "tool")

    def _turn(self, at: int, turn: Turn) -> str:
        is_model = turn.role in ("assistant", "model")
        text = "" if is_model and self._before == "assistant" else f"<|turn>{'model' if is_model else turn.role}\n"
        if turn.role == "assistant" and turn.thinking and at > self._last_user:
            text += f"<|channel>thought\n{turn.thinking}\n<channel|>"
        results = self._results(at, turn)
        self.ended_with = "tool_response" if results else "tool_call" if turn.calls else ""
        content, said_something = self._content(turn, is_model)
        text += "".join(map(_call, turn.calls)) + results + content
        self._before = turn.role
        return text + self._end(at, turn, is_model, said_something)

    def _end(self, at: int, turn: Turn, is_model: bool, said_something: bool) -> str:
        if self.ended_with == "tool_call":
            return "<|tool_response>"
        following = next((later.role for later in self._turns[at + 1 :] if later.role != "tool"), "")
        goes_on = is_model and following == "assistant"
        waits = self.ended_with == "tool_response" and not said_something and not following
        return "" if goes_on or waits else _END

    def _results(self, at: int, turn: Turn) -> str:
        """The results of the tools that the message called."""
        text = ""
        for later in self._turns[at + 1 :] if turn.calls else ():
            if later.role != "tool":
                break
            result = value(self._with_images(later.content, later.images), QUOTE)
            text += f"<|tool_response>response:{_called(later, turn.calls)}{{value:{result}}}<tool_response|>"
        return text

    def _content(self, turn: Turn, is_model: bool) -> tuple[str, bool]:
        """The content, and whether there is any."""
        content = turn.content
        if not is_model:
            content = content.strip(SPACE)
        elif content or turn.images:
            content = _without_thoughts(content)
        return self._with_images(content, turn.images), bool(content.strip(SPACE)) or turn.images > 0

    def _with_images(self, content: str, images: int) -> str:
        shown = with_images(content, images, self._images)
        self._images += images
        return shown


def _without_thoughts(text: str) -> str:
    kept = ""
    while (start := text.find("<|channel>")) >= 0:
        kept += text[:start]
        end = text.find("<channel|>", start)
        if end < 0:
            return kept.strip(SPACE)
        text = text[end + len("<channel|>") :]
    return (kept + text).strip(SPACE)


def _called(result: Turn, calls: tuple[Call, ...]) -> str:
    """The name of the tool that gave a result."""
    by_id = (call.name for call in calls if result.tool_call_id and call.id == result.tool_call_id)
    return next(by_id, result.tool_name or "unknown")


def _call(call: Call) -> str:
    return f"<|tool_call>call:{call.name}{mapping(call.arguments, QUOTE)}<tool_call|>"
