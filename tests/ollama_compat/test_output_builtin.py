"""Ollama's built-in parsers: what they find is what its own code finds, and it does not depend on how an answer is cut."""

from __future__ import annotations

import itertools
import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ollama_compat import decoding, output
from ollama_compat.output import CallError, OutputParser, Setup, builtin
from ollama_compat.output.builtin import PARSERS
from ollama_compat.schema import ChatRequest
from ollama_compat.store.capabilities import PARSERS as ABLE

GOLDEN = Path(__file__).parents[1] / "golden"
CASES: list[dict[str, Any]] = json.loads(lzma.decompress((GOLDEN / "ollama_parsers.json.xz").read_bytes()))
_TOOLS = json.dumps({"tools": json.loads((GOLDEN / "builtin_cases.json").read_text())["tools"]})
TOOLS = decoding.decode(_TOOLS.encode(), ChatRequest).tools or []

Found = tuple[str, str, list[Any], bool]  # content, thinking, calls, and whether it ended with an error


def parser(case: dict[str, Any]) -> OutputParser:
    """A new parser for the case."""
    found = builtin(case["parser"], Setup(TOOLS, case["think"], case.get("last")))
    assert found is not None
    return found


def read(case: dict[str, Any], pieces: Iterable[str]) -> Found:
    """What the answer comes to in these pieces."""
    reader, events, failed = parser(case), [], False
    try:
        for piece in pieces:
            events += reader.feed(piece)
        events += reader.finish()
    except CallError:
        failed = True
    calls = [event for event in events if isinstance(event, output.ToolCall)]
    assert [call.index for call in calls] == list(range(len(calls)))
    content = "".join(event.text for event in events if isinstance(event, output.Content))
    thinking = "".join(event.text for event in events if isinstance(event, output.Thinking))
    return content, thinking, [(call.name, call.arguments) for call in calls], failed


def whole(reader: OutputParser, text: str) -> list[output.Event]:
    """The events of a whole answer."""
    return reader.feed(text) + reader.finish()


def recorded(case: dict[str, Any]) -> Found:
    """What Ollama made of the whole answer."""
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in case.get("calls", ())]
    return case.get("content", ""), case.get("thinking", ""), calls, "error" in case


def test_every_parser_is_in_the_recording() -> None:
    assert {case["parser"] for case in CASES} | {"nemotron-3.5-nano"} == set(PARSERS) == set(ABLE)


@pytest.mark.parametrize("name", sorted({case["parser"] for case in CASES}))
def test_as_ollama(name: str) -> None:
    for case in CASES:
        if case["parser"] == name and not is_better(case):
            got, want = read(case, [case["text"]]), recorded(case)
            assert got == want if not want[3] else got[3], case
            assert set(parser(case).preserved) == set(case.get("preserved") or ())


def is_better(case: dict[str, Any]) -> bool:
    """Whether the case is one in which Ollama does worse, or what it does depends on how the answer is cut."""
    name, think, text = case["parser"], case["think"], case["text"]
    told_not_to_reason = name == "qwen3-vl-thinking" and think is False  # Ollama takes the whole answer for reasoning
    stray = (
        name in ("laguna", "poolside-v1", "cohere") and not think and text.startswith(("Why?</think>", "Why?<|END", "Hm.<|END"))
    )
    return told_not_to_reason or stray


@pytest.mark.parametrize(
    ("name", "think", "text", "found"),
    [
        ("qwen3-vl-thinking", False, "Because.", ("Because.", "", [], False)),
        ("laguna", None, "Why?</think>Because.", ("Why?Because.", "", [], False)),
        ("cohere", False, "Why?<|END_THINKING|><|START_TEXT|>Because.", ("Why?Because.", "", [], False)),
        ("lfm2", None, "[get_weather(city='Paris')]", ("", "", [("get_weather", {"city": "Paris"})], False)),
        ("lfm2", None, "[get_weather(city='Paris'", ("[get_weather(city='Paris'", "", [], False)),
        ("lfm2", None, "now(), other()", ("now(), other()", "", [], False)),
        ("functiongemma", None, "<start_function_call>x<end_function_call>", ("", "", [], False)),
        ("functiongemma", None, "<start_function_call>call:f{b:3 x}<end_function_call>", ("", "", [("f", {"b": "3 x"})], False)),
        ("olmo3", None, "<function_calls>now()</function_calls>" * 2, ("", "", [("now", {})] * 2, False)),
        ("deepseek3", None, "a <｜tool▁output▁begin｜>b", ("a b", "", [], False)),
        ("qwen3.5", None, "<tool_call><function=now></function></tool_call> </think>", ("</think>", "", [("now", {})], False)),
        ("qwen3", None, "is a <", ("is a <", "", [], False)),
    ],
)
def test_better_than_ollama(name: str, think: bool | None, text: str, found: Found) -> None:
    case = {"parser": name, "think": think, "text": text}
    assert read(case, [text]) == found == read(case, text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("qwen3", "<tool_call>x</tool_call>", "failed to parse JSON: invalid character 'x' looking for beginning of value"),
        ("ministral", "[TOOL_CALLS]f[ARGS]{}", "tool 'f' not found"),
        ("glm-4.7", "</think><tool_call></tool_call>", "empty function name"),
        (
            "qwen3-coder",
            "<tool_call>\n<function=f><parameter=x>1</function></tool_call>",
            "XML syntax error on line 2: element <parameter> closed by </function>",
        ),
        (
            "harmony",
            "<|channel|>commentary to=f<|message|>{",
            "error parsing tool call: raw='{', err=unexpected end of JSON input",
        ),
    ],
)
def test_errors_are_ollamas(name: str, text: str, message: str) -> None:
    reader = parser({"parser": name, "think": None})
    with pytest.raises(CallError) as caught:
        whole(reader, text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("name", "before", "unit", "after"),
    [
        ("olmo3", "<function_calls>now(a=", "[", ")</function_calls>"),
        ("olmo3", "<function_calls>now(a=" + "[" * 2000, "]", ")</function_calls>"),
        ("functiongemma", "<start_function_call>call:now{a:" + "[" * 2000, "]", "}<end_function_call>"),
        ("lfm2", "<|tool_call_start|>now(a=" + "[" * 2000, "]", ")<|tool_call_end|>"),
        ("gemma4", "<|tool_call>call:now{a:" + "[" * 2000, "]", "}<tool_call|>"),
        ("gemma4", "<|tool_call>call:now{a:", "'x',b:", "<tool_call|>"),
        ("ministral", "[TOOL_CALLS]now[ARGS]" + '{"a":' * 2000 + "1", "}", ""),
        ("cohere", "<|END_THINKING|><|START_ACTION|>", "{[", "<|END_ACTION|>"),
        ("qwen3-coder", "<tool_call><function=f>", "<parameter=a>", "</function></tool_call>"),
        ("glm-4.7", "</think><tool_call>f", "<arg_key>", "</tool_call>"),
        ("glimmer", " to=now<|message|><atem:function_calls>", '<atem:invoke name="">', "</atem:function_calls><|eot|>"),
        ("laguna", "<tool_call>f", "<arg_key>a</arg_key>", "</tool_call>"),
        ("deepseek3", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁calls▁end｜>"),
    ],
)
def test_deep_and_long_calls_do_no_harm(name: str, before: str, unit: str, after: str) -> None:
    text = before + unit * 2000 + after
    read({"parser": name, "think": None}, [text])  # in the time of a test; what comes of it is the model's affair


# ---------------------------------------------------------------- streaming


@pytest.mark.parametrize("name", sorted({case["parser"] for case in CASES}))
def test_cuts_change_nothing(name: str) -> None:
    """An answer cut at any one place, or everywhere, comes to the same; one that ends with an error does so."""
    for case in CASES:
        if case["parser"] == name:
            text, found = case["text"], read(case, [case["text"]])
            for pieces in (text, *([text[:at], text[at:]] for at in range(1, len(text)))):
                got = read(case, pieces)
                assert got == found or (got[3] and found[3]), case


@pytest.mark.parametrize("name", sorted({case["parser"] for case in CASES}))
def test_what_was_sent_stays_true(name: str) -> None:
    """What any beginning of an answer has settled is a beginning of what the whole answer comes to: no part of a tag slips
    out, and no call before it is whole."""
    for case in CASES:
        if case["parser"] == name:
            content, thinking, calls, failed = read(case, [case["text"]])
            sent: Found = ("", "", [], False)
            reader = parser(case)
            for character in case["text"]:
                sent = sent_with(sent, reader, character)
                assert failed or (
                    content.startswith(sent[0]) and thinking.startswith(sent[1]) and calls[: len(sent[2])] == sent[2]
                )


def sent_with(sent: Found, reader: OutputParser, character: str) -> Found:
    """What has been sent after one more character."""
    content, thinking, calls, failed = sent
    try:
        events = [] if failed else reader.feed(character)
    except CallError:
        return content, thinking, calls, True
    for kind, group in itertools.groupby(events, type):
        if kind is output.ToolCall:
            calls = [*calls, *((call.name, call.arguments) for call in group)]
        else:
            text = "".join(event.text for event in group)
            content, thinking = (content + text, thinking) if kind is output.Content else (content, thinking + text)
    return content, thinking, calls, failed


@pytest.mark.parametrize(
    ("name", "before", "tag", "found"),
    [
        ("qwen3", "Hi. ", "<tool_call>", ("Hi.", "")),
        ("qwen3.5", "Why? ", "</think>", ("", "Why?")),
        ("qwen3.5", "Why? ", "<tool_call>", ("", "Why?")),
        ("qwen3-coder", "Hi.", "<tool_call>", ("Hi.", "")),
        ("glm-4.7", "Why?</think>Hi.", "<tool_call>", ("Hi.", "Why?")),
        ("deepseek3", "Hi.", "<｜tool▁calls▁begin｜>", ("Hi.", "")),
        ("deepseek3", "Hi.<｜tool▁output▁begin｜>r", "<｜tool▁output▁end｜>", ("Hi.r", "")),
        ("cogito", "Hi.", "<｜tool▁outputs▁begin｜>", ("Hi.", "")),
        ("gemma4", "Hi.", "<|channel>", ("Hi.", "")),
        ("lfm2", "Hi.", "<|tool_call_start|>", ("Hi.", "")),
        ("functiongemma", "Hi.", "<start_function_call>", ("Hi.", "")),
        ("ministral", "Hi.", "[TOOL_CALLS]", ("Hi.", "")),
        ("ministral", "[THINK]Why?", "[/THINK]", ("", "Why?")),
        ("olmo3", "Hi.", "<function_calls>", ("Hi.", "")),
        ("olmo3-think", "Why?", "</think>", ("", "Why?")),
        ("cohere", "Why?", "<|END_THINKING|>", ("", "Why?")),
        ("cohere", "<|END_THINKING|><|START_TEXT|>Hi.", "<|END_TEXT|>", ("Hi.", "")),
        ("harmony", "<|channel|>final<|message|>Hi.", "<|end|>", ("Hi.", "")),
        ("laguna", "Hi.", "<tool_call>", ("Hi.", "")),
        ("glimmer", " to=user<|message|>Hi.", "<|eot|>", ("Hi.", "")),
    ],
)
def test_an_answer_that_breaks_off_in_a_tag(name: str, before: str, tag: str, found: tuple[str, str]) -> None:
    for length in range(2, len(tag)):
        text = before + tag[:length]
        assert read({"parser": name, "think": None}, [text])[:2] == found


def test_reasoning_that_is_yet_to_come() -> None:
    """What a grammar has to let pass before it begins."""

    def reasoning(name: str, **setup: Any) -> Any:
        found = builtin(name, Setup(**setup))
        assert found is not None
        return found.reasoning

    assert reasoning("qwen3.5") == output.Reasoning("<think>", "</think>", begun=True)
    assert reasoning("qwen3.5", think=False) is None
    assert reasoning("qwen3.5", last={"role": "assistant", "content": "It"}) is None
    assert reasoning("qwen3-coder") is None
    assert reasoning("gemma4", think=True) == output.Reasoning("<|channel>", "<channel|>", begun=False)
    assert reasoning("lfm2-thinking", think="low") == output.Reasoning("<think>", "</think>", begun=False)
    assert reasoning("harmony").end == "<|channel|>final<|message|>"
    assert reasoning("qwen3-thinking", prompt="assistant\n") == output.Reasoning("<think>", "</think>", begun=False)


@pytest.mark.parametrize(
    ("prompt", "text", "found"),
    [
        ("assistant\n<think>\n", "Why?</think>So.", ("So.", "Why?")),
        ("assistant\n", "<think>\nWhy?</think>So.", ("So.", "Why?")),
        ("assistant\n", "So.", ("So.", "")),
        (None, "Why?</think>So.", ("So.", "Why?")),
    ],
)
def test_a_template_need_not_open_the_reasoning(prompt: str | None, text: str, found: tuple[str, str]) -> None:
    reader = builtin("qwen3.5", Setup(think=True, prompt=prompt))
    assert reader is not None
    events = whole(reader, text)
    assert ["".join(e.text for e in events if isinstance(e, kind)) for kind in (output.Content, output.Thinking)] == list(found)


def test_names_that_harmony_takes() -> None:
    tools = [{"function": {"name": name}} for name in ("get weather", "get.weather", "3d", "!", "browser.open", "größe$", "now")]
    shown = [tool["function"]["name"] for tool in output.shown_tools("harmony", tools)]
    assert shown == ["get_weather", "get_weather_2", "_3d", "unnamed", "browser.open", "größe$", "now"]
    assert output.shown_tools("qwen3", tools) == tools
    reader = builtin("harmony", Setup(tools))
    assert reader is not None
    (call,) = whole(reader, "<|channel|>commentary to=functions.get_weather_2<|message|>{}")
    assert isinstance(call, output.ToolCall)
    assert call.name == "get.weather"
