"""The `format` of a request, or its grammar, or its tools: what its answer has to conform to, and from where on."""

from __future__ import annotations

import dataclasses
from typing import Any

from ollama_compat import duration, gojson, tool_choice
from ollama_compat.errors import BadRequest, InternalError
from ollama_compat.output import OutputParser
from ollama_compat.schema import ChatRequest, GenerateRequest
from runtime.frames import CallForm


@dataclasses.dataclass(frozen=True, slots=True)
class Constraint:
    """The fields of a Generate frame that keep its answer to a format."""

    grammar: str = ""
    calls: CallForm | None = None
    start: str = ""
    opening: str = ""


def constraint(
    request: ChatRequest | GenerateRequest,
    parser: OutputParser | None,
    think: bool | str | None,
    *,
    chats: bool,
    grammar: str = "",
) -> Constraint:
    """The constraint of a request. Raises the error of a format that is none.

    An answer may reason before it follows its grammar; unless the prompt has begun the reasoning, a model that was told not
    to reason follows it at once. `chats`: Ollama hands the conversation to its engine, which gets the keys of a schema in order,
    and `json` as a schema, by which there is less white space.
    `grammar`: for requests without a format.
    """
    grammar = of_format(request.format, chats=chats) or grammar
    calls = _calls(request, parser)
    if calls is not None and (calls.forced or not grammar):
        grammar = ""
    else:
        calls = None
    reasoning = parser.reasoning if parser else None
    if not (grammar or calls) or reasoning is None or not (reasoning.begun or think):
        return Constraint(grammar, calls)
    return Constraint(grammar, calls, reasoning.end, "" if reasoning.begun else reasoning.start)


def _calls(request: ChatRequest | GenerateRequest, parser: OutputParser | None) -> CallForm | None:
    if isinstance(request, GenerateRequest) or not request.tools:
        return None
    return tool_choice.form(request.tools, request.tool_choice, parser)


def of_format(format_: Any, *, chats: bool) -> str:
    """`json`, or a JSON schema; empty where anything goes. Raises the error of what is none. `chats`: see `constraint`."""
    if format_ is None or format_ == "":
        return ""
    try:
        text = gojson.text_of(_sorted(format_) if chats else format_)
    except RecursionError:
        raise BadRequest("the format is nested too deeply") from None
    if format_ == "json":
        return "{}" if chats else "json"
    if isinstance(format_, dict):
        return text
    raise InternalError(f'invalid format: {duration.quote(text)}; expected "json" or a valid JSON Schema object')


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return {key: _sorted(value[key]) for key in sorted(value)} if isinstance(value, dict) else value
