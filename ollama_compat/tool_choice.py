"""Which tools an answer may or must call: `tool_choice` in the forms of OpenAI and Anthropic, and what it takes to enforce it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ollama_compat import gojson
from ollama_compat.errors import Refused
from ollama_compat.gotypes import Place
from ollama_compat.output import Content, Event, OutputParser, Reasoning, ToolCall
from ollama_compat.output.tool_json import Scanner, llama_server_id, load_object, named_call
from runtime.frames import CallForm

Tools = list[dict[str, Any]]

_FORCED = ("required", "any", "tool", "function")  # values, or types of a choice, with which a tool has to be called


class Tool(dict[str, Any]):
    """A tool in the form in which Ollama would write it again; beside it the schema of its arguments, as the client sent it."""

    __slots__ = ("schema", "strict")

    def __init__(self, fields: Mapping[str, Any], schema: Mapping[str, Any] | None, strict: bool) -> None:
        super().__init__(fields)
        self.schema = schema
        self.strict = strict  # whether arguments have to conform to it


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """What a request says of its tools."""

    forced: bool = False  # a tool has to be called
    hidden: bool = False  # no tool may be called
    names: frozenset[str] | None = None  # the ones that may be called; None: all
    several: bool = True  # more than one call in an answer

    def offered(self, tools: Tools | None) -> Tools | None:
        """The tools that the model is told of. Refused when one is named that there is not."""
        if self.hidden or not tools or self.names is None:
            return None if self.hidden else tools
        if unknown := self.names - {tool["function"]["name"] for tool in tools}:
            raise Refused(f"Tool choice '{min(unknown)}' not found in 'tools' parameter.")
        return [tool for tool in tools if tool["function"]["name"] in self.names]


FREE = Choice()


def read(value: Any, *, several: bool = True) -> Choice:
    """The choice that `value` is; what is none leaves all to the model, as Ollama does. `several`: calls in an answer."""
    if not isinstance(value, dict):
        return Choice(forced=value in ("required", "any"), hidden=value == "none", several=several)
    kind = value.get("type")
    several = several and value.get("disable_parallel_tool_use") is not True
    if kind == "allowed_tools":
        allowed = value.get("allowed_tools", value)
        allowed = allowed if isinstance(allowed, dict) else {}
        names = [_name(tool) for tool in allowed.get("tools") or () if isinstance(tool, dict)]
        return Choice(allowed.get("mode") == "required", names=frozenset(filter(None, names)), several=several)
    name = _name(value)
    forced = kind in _FORCED and (bool(name) or kind in ("required", "any"))
    return Choice(forced, kind == "none", frozenset((name,)) if forced and name else None, several and not name)


def _name(value: Mapping[str, Any]) -> str:
    function = value.get("function")
    name = function.get("name") if isinstance(function, dict) else value.get("name")
    space = value.get("namespace")
    return f"{space}.{name}" if isinstance(space, str) and space else name if isinstance(name, str) else ""


def choice(value: Any, at: Place) -> Choice:
    """The kind of a native request's field that Ollama does not know: `none` changes nothing there, as recorded."""
    made = read(gojson.plain(value))
    return FREE if made.hidden else made


# ---------------------------------------------------------------- enforcing


def form(tools: Sequence[Mapping[str, Any]], made: Choice, parser: OutputParser | None) -> CallForm | None:
    """The form of the calls of an answer; None: the model writes as it likes.

    A model whose calls are JSON between tags writes them so. Others write bare JSON where they are forced to call; where they
    are not, a call cannot be told from text while it is written, and nothing is enforced.
    """
    begin, end = getattr(parser, "json_tags", None) or ("", "")
    strict = any(isinstance(tool, Tool) and tool.strict for tool in tools)
    if not made.forced and not (strict and begin):
        return None
    return CallForm([_entry(tool) for tool in tools], begin, end, made.forced, made.several and bool(begin))


def _entry(tool: Mapping[str, Any]) -> dict[str, Any]:
    schema, strict = (tool.schema, tool.strict) if isinstance(tool, Tool) else (tool["function"]["parameters"], False)
    schema = schema if schema and schema.get("properties") is not None else None
    return {"name": tool["function"]["name"], "parameters": schema, "strict": strict}


class BareCalls:
    """A parser for an answer whose content is bare JSON: each object is a call."""

    def __init__(self, parser: OutputParser | None, new_id: Callable[[], str] = llama_server_id) -> None:
        self._parser = parser
        self._new_id = new_id
        self._held = ""
        self._scanner = Scanner()
        self._calls = 0

    @property
    def preserved(self) -> tuple[str, ...]:
        return self._parser.preserved if self._parser else ()

    @property
    def reasoning(self) -> Reasoning | None:
        return self._parser.reasoning if self._parser else None

    def feed(self, text: str) -> list[Event]:
        return self._read(self._parser.feed(text) if self._parser else [Content(text)])

    def finish(self) -> list[Event]:
        """A call that the answer's end cuts off is dropped."""
        return self._read(self._parser.finish() if self._parser else [])

    def _read(self, events: Sequence[Event]) -> list[Event]:
        found: list[Event] = []
        for event in events:
            found += self._take(event.text) if isinstance(event, Content) else [event]
        return found

    def _take(self, text: str) -> list[Event]:
        self._held = (self._held + text).lstrip()
        end = self._scanner.scan(self._held) if self._held else -1
        if end < 0:
            return []
        value, rest = load_object(self._held[:end]), self._held[end:]
        self._held, self._scanner = "", Scanner()
        call = None if value is None else named_call(value)
        if call is None:
            return self._take(rest)
        self._calls += 1
        return [ToolCall(*call, self._calls - 1, self._new_id()), *self._take(rest)]
