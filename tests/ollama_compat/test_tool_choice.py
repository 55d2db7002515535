from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_compat import output, tool_choice
from ollama_compat.decoding import decode
from ollama_compat.errors import Refused
from ollama_compat.output import Event, ToolCall
from ollama_compat.schema import ChatRequest
from ollama_compat.tool_choice import BareCalls, Choice, Tool
from runtime.frames import CallForm

HERMES = "{{ '<think>' }}{{ '</think>' }}{% for call in message.tool_calls %}<tool_call>{{ call }}</tool_call>{% endfor %}"
CITY = {"type": "object", "properties": {"city": {"type": "string", "minLength": 1}}, "required": ["city"]}


def tool(name: str, *, strict: bool = False) -> Tool:
    function = {"name": name, "parameters": CITY}
    body = {"tools": [{"type": "function", "function": function | ({"strict": True} if strict else {})}]}
    (decoded,) = decode(json.dumps(body).encode(), ChatRequest).tools or ()
    return decoded


F, G = tool("f"), tool("g")


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        (None, Choice()),
        ("auto", Choice()),
        ("whatever", Choice()),
        (7, Choice()),
        ("none", Choice(hidden=True)),
        ({"type": "none"}, Choice(hidden=True)),
        ("required", Choice(forced=True)),
        ({"type": "any"}, Choice(forced=True)),
        ({"type": "any", "disable_parallel_tool_use": True}, Choice(forced=True, several=False)),
        ({"type": "auto", "disable_parallel_tool_use": True}, Choice(several=False)),
        ({"type": "function", "function": {"name": "g"}}, Choice(True, names=frozenset("g"), several=False)),
        ({"type": "function", "name": "g"}, Choice(True, names=frozenset("g"), several=False)),
        ({"type": "tool", "name": "g"}, Choice(True, names=frozenset("g"), several=False)),
        ({"type": "function", "namespace": "n", "name": "g"}, Choice(True, names=frozenset(["n.g"]), several=False)),
        ({"type": "function"}, Choice()),
        ({"type": "web_search"}, Choice()),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"function": {"name": "g"}}]}},
            Choice(True, names=frozenset("g")),
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"name": "g"}, {}, 5]}, Choice(names=frozenset("g"))),
    ],
)
def test_choices(value: Any, choice: Choice) -> None:
    assert tool_choice.read(value) == choice


def test_offered() -> None:
    assert Choice().offered([F, G]) == [F, G]
    assert Choice(hidden=True).offered([F]) is None
    assert Choice(names=frozenset("g")).offered([F, G]) == [G]
    assert Choice(names=frozenset("g")).offered(None) is None
    with pytest.raises(Refused, match="Tool choice 'x' not found"):
        Choice(names=frozenset("x")).offered([F, G])


def test_a_native_request_may_choose() -> None:
    """But not against tools that it brings itself: Ollama answers as if nothing had been chosen."""
    for value, made in (("required", Choice(forced=True)), ("none", Choice()), ({"type": "none"}, Choice())):
        assert decode(json.dumps({"tool_choice": value}).encode(), ChatRequest).tool_choice == made


def hermes(*tools: Tool) -> output.OutputParser:
    return output.native(HERMES, tools=tools)


def test_forms() -> None:
    entry = {"name": "f", "parameters": CITY, "strict": False}
    assert tool_choice.form([F], Choice(), hermes(F)) is None
    assert tool_choice.form([F], Choice(True), hermes(F)) == CallForm([entry], "<tool_call>", "</tool_call>", True, True)
    assert tool_choice.form([F], Choice(True), output.native("", tools=[F])) == CallForm([entry], "", "", True, False)
    assert tool_choice.form([F], Choice(True), None) == CallForm([entry], "", "", True, False)


def test_strict_tools_are_enforced_where_a_call_can_be_told_from_text() -> None:
    strict = tool("f", strict=True)
    form = tool_choice.form([strict], Choice(several=False), hermes(strict))
    assert form == CallForm([{"name": "f", "parameters": CITY, "strict": True}], "<tool_call>", "</tool_call>", False, False)
    assert tool_choice.form([strict], Choice(), output.native("", tools=[strict])) is None


def test_bare_calls_at_every_cut() -> None:
    text = '<think>{"name": "no"}</think>\n\n{"name": "f", "arguments": {"city": "a}b"}}\n{"name": "g", "arguments": {}} '
    calls = [ToolCall("f", {"city": "a}b"}, 0, "id"), ToolCall("g", {}, 1, "id")]
    for cut in range(len(text)):
        parser = BareCalls(hermes(F, G), new_id=lambda: "id")
        events: list[Event] = [*parser.feed(text[:cut]), *parser.feed(text[cut:]), *parser.finish()]
        assert [event for event in events if isinstance(event, ToolCall)] == calls
        assert "".join(event.text for event in events if not isinstance(event, ToolCall)) == '{"name": "no"}'


def test_a_call_that_is_cut_off_is_dropped() -> None:
    parser = BareCalls(None)
    assert parser.feed('{"name": "f", "argum') == []
    assert parser.finish() == []
