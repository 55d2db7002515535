"""A model's text split into content, reasoning and tool calls: one file for each way of writing tool calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ollama_compat.output import apriel, go_tags, granite_3, hermes, llama, mistral, nemotron_2
from ollama_compat.output.blocks import Setup
from ollama_compat.output.builtin import PARSERS, shown_tools
from ollama_compat.output.events import CallError, Content, Event, OutputParser, Reasoning, Thinking, ToolCall, Wrapper
from ollama_compat.output.generic import GenericCalls
from ollama_compat.output.jinja_families import family
from ollama_compat.output.offered import Offered
from ollama_compat.output.parser import CallParser, Parser
from ollama_compat.output.thinking import Tags, ThinkingSplitter, tags_of_jinja
from ollama_compat.output.unsplit import Unsplit
from ollama_compat.template.gotemplate import Template

__all__ = [
    "CallError",
    "Content",
    "Event",
    "Offered",
    "OutputParser",
    "Reasoning",
    "Setup",
    "Thinking",
    "ToolCall",
    "Unsplit",
    "Wrapper",
    "builtin",
    "generic",
    "names_of",
    "native",
    "shown_tools",
]

_Dialect = Callable[[Sequence[str], bool], CallParser]
_DIALECTS: tuple[tuple[Callable[[str], bool], _Dialect], ...] = (
    (hermes.matches, hermes.make),
    (mistral.matches, mistral.make),
    (llama.matches, llama.make),
    (granite_3.matches, granite_3.make),
    (nemotron_2.matches, nemotron_2.make),
    (apriel.matches, apriel.make),
)
"""Whether a Jinja template writes tool calls in this way, and what makes the parser for it; the first match is taken."""


def native(
    template_source: str,
    *,
    tools: Sequence[Mapping[str, Any]] | None,
    prompt_tail: str = "",
    told: bool = False,
) -> OutputParser:
    """The parser for answers to a prompt made by the Jinja template, as llama-server parses them.

    `prompt_tail` is the prompt or its end, without a text that the answer continues; that text is to be fed first, for
    it is part of the answer. Without `tools`, tool calls are content. Reasoning is split off whatever the request says of it:
    a template that cannot switch it off has it in every answer. `told`: the model knows of the tools by the text of the messages
    only, and calls them in the form that it was told.
    """
    make = None if told else family(template_source)
    if make is not None:
        return make(Setup(tools or (), think=True, prompt=prompt_tail, lenient=True))
    tags = tags_of_jinja(template_source)
    splitter = None if tags is None else ThinkingSplitter(tags)
    if splitter is not None:
        splitter.start_after(prompt_tail)
    calls = _calls(template_source, names_of(tools), splitter is None, told) if tools else None
    return Parser(splitter, calls, () if tags is None else (tags.start, tags.end))


def generic(
    template: Template, *, tools: Sequence[Mapping[str, Any]] | None, think: bool, prompt_tail: str = "", told: bool = False
) -> OutputParser:
    """The parser for answers to a prompt made by a Go template without a parser of its own, as Ollama parses them.

    Reasoning is looked for when `think` is on and the template has tags for it; `prompt_tail` is the prompt or its end. `told`
    as for `native`.
    """
    opening, closing = go_tags.thinking_tags(template.root)
    splitter = ThinkingSplitter(Tags(opening, closing)) if think and opening and closing else None
    if splitter is not None and prompt_tail.rstrip().endswith(opening):
        splitter.start_after(prompt_tail)
    calls: CallParser | None = None
    if tools and told:
        calls = hermes.make(names_of(tools), splitter is None)
    elif tools:
        calls = GenericCalls(go_tags.call_tag(template.root), names_of(tools))
    return Parser(splitter, calls, () if splitter is None else (opening, closing))


def builtin(name: str, setup: Setup) -> OutputParser | None:
    """The parser that Ollama has built in under this name; None: there is none."""
    make = PARSERS.get(name)
    return None if make is None else make(setup)


def _calls(source: str, names: Sequence[str], fresh: bool, told: bool) -> CallParser | None:
    if told:
        return hermes.make(names, fresh)
    return next((make(names, fresh) for matches, make in _DIALECTS if matches(source)), None)


def names_of(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the tools are called."""
    return [tool.get("function", {}).get("name", "") for tool in tools]
