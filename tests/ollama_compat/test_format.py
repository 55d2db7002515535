"""The `format` of requests: what reaches the runner, and what clients hear when it is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_compat import output
from ollama_compat.errors import BadRequest, InternalError
from ollama_compat.prompt import _Prefilled
from ollama_compat.schema import ChatRequest
from ollama_compat.structured import Constraint, constraint
from ollama_compat.tool_choice import Choice, Tool

MODEL = "demo-moe"
SCHEMA = {"type": "object", "properties": {"z": {"enum": ["1", 1.50]}, "a": {"type": "string"}}, "required": ["z", "a"]}
SORTED = {"properties": {"a": {"type": "string"}, "z": {"enum": ["1", 1.5]}}, "required": ["z", "a"], "type": "object"}
TEMPLATE = "{% if think %}<think>{{ reasoning_content }}\n</think>\n\n{% endif %}"


async def framed(live: Any, path: str, **fields: Any) -> list[str]:
    """Grammar, start and opening of the Generate frame."""
    body = {"model": MODEL, "stream": False} | fields
    body |= {"prompt": "frame()"} if path == "/api/generate" else {"messages": [{"role": "user", "content": "frame()"}]}
    status, answer = await live.post(path, **body)
    assert status == 200, answer
    told: list[str] = json.loads(answer["response"] if path == "/api/generate" else answer["message"]["content"])
    return told


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
@pytest.mark.parametrize("value", [None, ""])
async def test_no_format(live: Any, path: str, value: str | None) -> None:
    assert await framed(live, path, format=value) == ["", "", ""]


@pytest.mark.parametrize(("path", "grammar"), [("/api/generate", "json"), ("/api/chat", "{}")])
async def test_json(live: Any, path: str, grammar: str) -> None:
    assert await framed(live, path, format="json", think=False) == [grammar, "", ""]


async def test_where_the_engine_makes_the_prompt_the_keys_of_a_schema_are_sorted(live: Any) -> None:
    grammar, _, _ = await framed(live, "/api/chat", format=SCHEMA)
    assert grammar == json.dumps(SORTED, separators=(",", ":"))


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
async def test_a_rendered_prompt_keeps_the_keys_in_order(go: Any, path: str) -> None:
    template = "{{ range .Messages }}{{ .Content }}{{ end }}"
    status, _ = await go.post("/api/create", model="go", **{"from": MODEL}, template=template, stream=False)
    assert status == 200
    grammar, _, _ = await framed(go, path, model="go", format=SCHEMA)
    assert grammar == json.dumps(SCHEMA, separators=(",", ":"))


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
async def test_the_grammar_waits_for_the_end_of_the_reasoning(live: Any, path: str) -> None:
    for think in (None, True, "high"):
        assert await framed(live, path, format={}, think=think) == ["{}", "</think>", "<think>"]


async def test_a_refusal_of_the_runner_is_the_engines_own_error(live: Any) -> None:
    status, answer = await live.post("/api/generate", model=MODEL, prompt="refuse()", format={"type": "nope"}, stream=False)
    assert status == 400
    message = "Unable to generate parser for this template. Automatic parser generation failed: it is none"
    assert json.loads(answer["error"]) == {"error": {"code": 400, "message": message, "type": "invalid_request_error"}}
    raw = {"model": MODEL, "prompt": "refuse()", "format": {"type": "nope"}, "raw": True}
    _, other = await live.post("/api/generate", **raw)
    message = 'Field \'json_schema\': "json_schema": JSON schema conversion failed:\nit is none'
    assert json.loads(other["error"])["error"]["message"] == message
    status, streamed = await live.post("/api/generate", model=MODEL, prompt="refuse()", format={"type": "nope"})
    assert (status, streamed) == (400, answer)


@pytest.mark.parametrize(("value", "shown"), [("yaml", r"\"yaml\""), (True, "true"), (["json"], r"[\"json\"]"), (0, "0")])
async def test_what_is_no_format(live: Any, value: Any, shown: str) -> None:
    message = f'invalid format: "{shown}"; expected "json" or a valid JSON Schema object'
    assert await live.post("/api/generate", model=MODEL, prompt="x", format=value) == (500, {"error": message})


# ---------------------------------------------------------------- the constraint


def parser(prompt: str) -> output.OutputParser:
    return output.native(TEMPLATE, tools=None, prompt_tail=prompt)


@pytest.mark.parametrize(
    ("prompt", "think", "start", "opening"),
    [
        ("<|assistant|>", True, "</think>", "<think>"),
        ("<|assistant|>", False, "", ""),  # it may, but was told not to
        ("<|assistant|><think>\n", True, "</think>", ""),  # it already does
        ("<|assistant|><think>\n", False, "</think>", ""),
        ("<|assistant|><think>\n\n</think>\n\n", True, "", ""),  # it has done
    ],
)
def test_reasoning_comes_before_the_grammar(prompt: str, think: bool, start: str, opening: str) -> None:
    assert constraint(ChatRequest(format="json"), parser(prompt), think, chats=False) == Constraint("json", None, start, opening)
    assert constraint(ChatRequest(format=None), parser(prompt), think, chats=True) == Constraint()


@pytest.mark.parametrize(
    ("prefill", "start", "opening"),
    [("  ", "</think>", "<think>"), ("<think>Well", "</think>", ""), ("<think>a</think>", "", ""), ("{", "", "")],
)
def test_a_text_put_into_the_mouth_counts(prefill: str, start: str, opening: str) -> None:
    prefilled = _Prefilled(parser("<|assistant|>"), prefill)
    assert constraint(ChatRequest(format="json"), prefilled, True, chats=True) == Constraint("{}", None, start, opening)


def test_an_answer_without_a_parser_follows_at_once() -> None:
    assert constraint(ChatRequest(format="json"), None, True, chats=False) == Constraint("json")


def test_a_format_that_is_too_deep() -> None:
    value: Any = {}
    for _ in range(9000):
        value = {"items": value}
    with pytest.raises(BadRequest):
        constraint(ChatRequest(format=value), None, None, chats=True)
    with pytest.raises(InternalError):
        constraint(ChatRequest(format=3), None, None, chats=True)


TOOL = Tool({"type": "function", "function": {"name": "f", "parameters": {}}}, {"type": "object", "properties": {}}, False)


def test_forced_calls_come_before_a_format_and_a_format_before_a_grammar() -> None:
    forced = ChatRequest(format="json", tools=[TOOL], tool_choice=Choice(forced=True))
    found = constraint(forced, parser("<|assistant|>"), True, chats=True, grammar="root ::= x")
    assert found.calls is not None
    assert (found.grammar, found.start, found.opening) == ("", "</think>", "<think>")
    free = ChatRequest(format="json", tools=[TOOL])
    assert constraint(free, None, None, chats=True, grammar="root ::= x") == Constraint("{}")
    assert constraint(ChatRequest(), None, None, chats=True, grammar="root ::= x") == Constraint("root ::= x")
