"""From a conversation to a prompt by a Go template, as Ollama does it (`template/template.go`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ollama_compat.template import chat_types
from ollama_compat.template.errors import TemplateError
from ollama_compat.template.gotemplate import Template, nodes

Message = Mapping[str, Any]
Think = bool | str | None
"""Whether the model should reason, or how much; None: nothing was said."""


def render(
    template: Template,
    *,
    messages: Sequence[Message] = (),
    tools: Sequence[Mapping[str, Any]] | None = None,
    prompt: str = "",
    suffix: str = "",
    think: Think = None,
) -> str:
    """The prompt for the messages (in the API's JSON form), or for text to insert between `prompt` and `suffix`.

    A template that does not know `.Messages` gets them in rounds of system, prompt and response. Raises TemplateError.
    """
    common = _thinking(think)
    if prompt and suffix:
        return template.execute({"Prompt": prompt, "Suffix": suffix, "Response": "", **common})
    system, collated = collate(messages)
    if "messages" not in template.variables():
        return "".join(_rounds(template, collated, common))
    try:
        shown = {"Messages": chat_types.messages_value(collated), "Tools": chat_types.tools_value(tools)}
    except RecursionError:
        raise TemplateError("exceeded max depth") from None
    return template.execute({"System": system, **shown, "Response": "", **common})


def _thinking(think: Think) -> dict[str, Any]:
    level = think if isinstance(think, str) else "medium" if think else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def collate(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """The text of all system messages, and the messages with neighbours of one role made into one.

    Of the later of two neighbours only the content is kept. Results of tools stay apart.
    """
    collated: list[Message] = []
    for message in messages:
        if collated and collated[-1]["role"] == message["role"] != "tool":
            collated[-1] = {**collated[-1], "content": f"{collated[-1]['content']}\n\n{message['content']}"}
        else:
            collated.append(message)
    return "\n\n".join(message["content"] for message in messages if message["role"] == "system"), collated


# ---------------------------------------------------------------- templates of single rounds


@dataclasses.dataclass(slots=True)
class _Round:
    system: str = ""
    prompt: str = ""
    response: str = ""

    def values(self, common: Mapping[str, Any]) -> dict[str, Any]:
        return {"System": self.system, "Prompt": self.prompt, "Response": self.response, **common}


def _rounds(template: Template, messages: Sequence[Message], common: Mapping[str, Any]) -> Iterator[str]:
    """One run for each round. The last one ends where the response does, for the model to go on."""
    current = _Round()
    for message in messages:
        role, content = message["role"], message["content"]
        if (role == "system" and (current.prompt or current.response)) or (role == "user" and current.response):
            yield template.execute(current.values(common))
            current = _Round()
        if role == "system":
            current.system = content
        elif role == "user":
            current.prompt = content
        elif role == "assistant":
            current.response = content
    last = template.with_root(cut(template.root))
    yield last.execute(current.values(common), missing_is_zero=False)


def cut(root: nodes.List) -> nodes.List:
    """The template without what comes after `.Response`."""
    return _Cut().list(root)


class _Cut:
    """Copies a tree up to the response.

    Conditions do not count as places of the response, nor what is inside chains or handed to other templates. In the
    action itself the rest of the command goes, and the whole action where another command takes the response.
    """

    def __init__(self) -> None:
        self._done = False

    def list(self, node: nodes.List) -> nodes.List:
        kept = []
        for child in node.nodes:
            copy = None if self._done else self._node(child)
            if copy is not None:
                kept.append(copy)
        return dataclasses.replace(node, nodes=tuple(kept))

    def _node(self, node: nodes.Node) -> nodes.Node | None:
        if isinstance(node, nodes.Branch):
            body = self.list(node.body)
            otherwise = None if node.otherwise is None or self._done else self.list(node.otherwise)
            return dataclasses.replace(node, body=body, otherwise=otherwise)
        if isinstance(node, nodes.Action):
            pipe = self._pipe(node.pipe)
            return None if pipe is None else dataclasses.replace(node, pipe=pipe)
        return node

    def _pipe(self, pipe: nodes.Pipe) -> nodes.Pipe | None:
        commands = []
        for command in pipe.commands:
            args = [kept for arg in command.args if (kept := self._arg(arg)) is not None]
            if not args:
                return None
            commands.append(dataclasses.replace(command, args=tuple(args)))
        return dataclasses.replace(pipe, commands=tuple(commands))

    def _arg(self, arg: nodes.Node) -> nodes.Node | None:
        if self._done:
            return None
        if isinstance(arg, nodes.Field) and "Response" in arg.names:
            self._done = True
            return arg
        return self._pipe(arg) if isinstance(arg, nodes.Pipe) else arg
