"""Answers split into content, reasoning and tool calls, whatever pieces they come in."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from ollama_compat import output
from ollama_compat.output import Offered, hermes
from ollama_compat.output.generic import GenericCalls
from ollama_compat.output.parser import Parser
from ollama_compat.output.thinking import Tags, ThinkingSplitter

FOLDER = Path(__file__).parent / "templates"
DEMO = (FOLDER / "demo-moe.jinja").read_text()
PLAIN = "{{ messages[0].content }}"
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "get_weather_now", "now")]
PARIS = {"city": "Paris"}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'

Make = Callable[[], output.OutputParser]
Split = list[Any]  # ("content" | "thinking", text) and (name, arguments)


def split(make: Make, pieces: Iterable[str]) -> Split:
    """The events with neighbours of one kind joined, and the ids of calls left out."""
    parser = make()
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    joined: Split = []
    for kind, group in itertools.groupby(events, type):
        if kind is output.ToolCall:
            joined += [(event.name, event.arguments) for event in group]
        else:
            joined.append((kind.__name__.lower(), "".join(event.text for event in group)))
    calls = [event for event in events if isinstance(event, output.ToolCall)]
    assert [call.index for call in calls] == list(range(len(calls)))
    assert all(event.text for event in events if not isinstance(event, output.ToolCall))
    return joined


def check(make: Make, text: str, expected: Split) -> None:
    """`text` gives `expected` in one piece, cut anywhere, and letter by letter."""
    assert split(make, [text]) == expected
    assert split(make, text) == expected, "letter by letter"
    for cut in range(1, len(text)):
        assert split(make, [text[:cut], text[cut:]]) == expected, (text[:cut], text[cut:])


# ---------------------------------------------------------------- the Jinja template's dialects
# Checked against llama.cpp (common_chat_parse) where its grammar lets a model write the text at all.

THOUGHTS = [
    ("Hi there", [("content", "Hi there")]),
    ("\n\n Hi there", [("content", "Hi there")]),
    ("<think>\nabc\n</think>\n\nHi", [("thinking", "abc\n"), ("content", "Hi")]),
    ("<think>abc</think>Hi", [("thinking", "abc"), ("content", "Hi")]),
    (" \n<think>abc</think>Hi", [("thinking", "abc"), ("content", "Hi")]),
    ("<think>\n\nabc\n\n</think>\n\n\n\n Hi", [("thinking", "\nabc\n\n"), ("content", "\n\n Hi")]),
    ("<think>\n\n</think>\n\nHi", [("content", "Hi")]),
    ("<think></think>", []),
    ("Hi <think>x</think>", [("content", "Hi <think>x</think>")]),
    ("<think>a</think>b<think>c</think>d", [("thinking", "a"), ("content", "b<think>c</think>d")]),
    ("<think>abc", [("thinking", "abc")]),
    ("<think>abc</thi", [("thinking", "abc</thi")]),
    ("<think>a </ b </think", [("thinking", "a </ b </think")]),
    ("<think>a<</think>b", [("thinking", "a<"), ("content", "b")]),
    ("<thinking>x", [("content", "<thinking>x")]),
    ("<thi", [("content", "<thi")]),
    ("  ", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), THOUGHTS)
def test_reasoning(text: str, expected: Split) -> None:
    prompt = "<|im_start|>user\nabout <think><|im_end|>\n<|im_start|>assistant\n"
    check(lambda: output.native(DEMO, tools=None, prompt_tail=prompt), text, expected)


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        ("assistant\n<think>\n", "abc\n</think>\n\nHi", [("thinking", "abc\n"), ("content", "Hi")]),
        ("assistant\n<think>", "\nabc", [("thinking", "abc")]),
        ("assistant\n<think>\n", "\n</think>\n\nHi", [("content", "Hi")]),
        ("assistant\n<think>\n\n</think>\n\n", "\n\n Hi", [("content", "\n\n Hi")]),
        ("assistant\n<think>\n\n</think>\n\n", "<think>x</think>Hi", [("content", "<think>x</think>Hi")]),
        ("assistant\n<think>\n\n</think>", "\n\n\nHi", [("content", "\nHi")]),
        ("assistant</think>", "Hi", [("content", "Hi")]),
    ],
)
def test_reasoning_begun_or_ended_by_the_prompt(prompt: str, text: str, expected: Split) -> None:
    check(lambda: output.native(DEMO, tools=None, prompt_tail=prompt), text, expected)


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("Qwen-Qwen2.5-7B-Instruct", "<think>a</think>b", [("content", "<think>a</think>b")]),
        ("Qwen-Qwen3-0.6B", "<think>\n\na\n</think>\n\n\nb", [("thinking", "\na\n"), ("content", "\nb")]),
        ("Qwen-QwQ-32B", "<think>\na\n</think>\n\nb", [("thinking", "\na\n"), ("content", "\n\nb")]),
        ("HuggingFaceTB-SmolLM3-3B", "<think>\na\n</think>\nb", [("thinking", "\na\n"), ("content", "\nb")]),
        ("deepseek-ai-DeepSeek-V3.1", "<think>a</think>b", [("thinking", "a"), ("content", "b")]),
        ("microsoft-Phi-3.5-mini-instruct", "\n<think>a</think>b", [("content", "\n<think>a</think>b")]),
    ],
)
def test_reasoning_of_other_templates(template: str, text: str, expected: Split) -> None:
    source = (FOLDER / f"{template}.jinja").read_text()
    check(lambda: output.native(source, tools=None), text, expected)


CALLS = [
    ("Hi there", [("content", "Hi there")]),
    (CALL, [("get_weather", PARIS)]),
    (f"\n\n{CALL}\n", [("get_weather", PARIS)]),
    (f"text\n{CALL}", [("content", "text\n"), ("get_weather", PARIS)]),
    (f"{CALL}\n{CALL}", [("get_weather", PARIS)] * 2),
    (f"{CALL}{CALL} {CALL}", [("get_weather", PARIS)] * 3),
    (f"<think>\nx\n</think>\n\nok {CALL}", [("thinking", "x\n"), ("content", "ok "), ("get_weather", PARIS)]),
    (f"<think>x {CALL}</think>y", [("thinking", f"x {CALL}"), ("content", "y")]),
    (f"<think>x {CALL}", [("thinking", f"x {CALL}")]),
    # where llama.cpp's grammar would not have let the model go on
    (CALL.replace("\n", ""), [("get_weather", PARIS)]),
    (f"{CALL}\ndone.", [("get_weather", PARIS), ("content", "done.")]),
    (f"{CALL}\nand {CALL} end", [("get_weather", PARIS), ("content", "and "), ("get_weather", PARIS), ("content", "end")]),
    (CALL.replace("get_weather", "unknown"), [("unknown", PARIS)]),
    ('<tool_call>{"name": "now"}</tool_call>', [("now", {})]),
    (
        '<tool_call>{"name": "now", "arguments": null}</tool_call>',
        [("content", '<tool_call>{"name": "now", "arguments": null}</tool_call>')],
    ),
    (
        '<tool_call>{"arguments": {"b": 1, "a": [2, {"c": null}]}, "name": "now"}</tool_call>',
        [("now", {"b": 1, "a": [2, {"c": None}]})],
    ),
    ('<tool_call>{"name": "now", "parameters": {"a": 1}}</tool_call>', [("now", {"a": 1})]),
    ('<tool_call>{"name": "now", "arguments": "{\\"a\\": 1}"}</tool_call>', [("now", {"a": 1})]),
    ('<tool_call>{"type": "function", "function": {"name": "now", "arguments": {}}}</tool_call>', [("now", {})]),
    ('<tool_call>{"name": "now"}, {"name": "f"}</tool_call>x', [("now", {}), ("f", {}), ("content", "x")]),
    (
        '<tool_call>{"name": "now", "arguments": {"q": "a</tool_call>\\"}{<tool_call>"}}</tool_call>',
        [("now", {"q": 'a</tool_call>"}{<tool_call>'})],
    ),
    ('<tool_call>{"name": "now", "arguments": {"q": "a\nb\\\\"}}</tool_call>', [("now", {"q": "a\nb\\"})]),
    ('<tool_call>{"name": "now", "arguments": {}}', [("now", {})]),
    ('<tool_call>{"name": "now", "arguments": {}}</tool', [("now", {})]),
    # cut off
    (CALL[:-20], []),
    (CALL[:30], []),
    (f"text {CALL[:14]}", [("content", "text ")]),
    ("Hello <tool", [("content", "Hello <tool")]),
    ("Hello <tool_call>", [("content", "Hello <tool_call>")]),
    # no calls
    ("use the <tool_call> tag", [("content", "use the <tool_call> tag")]),
    ("a < b <tool_calls> {}", [("content", "a < b <tool_calls> {}")]),
    ("<tool_call>\n</tool_call>x", [("content", "<tool_call>\n</tool_call>x")]),
    ("<tool_call>\n{}\n</tool_call>", [("content", "<tool_call>\n{}\n</tool_call>")]),
    ('<tool_call>{"name": now}</tool_call> x', [("content", '<tool_call>{"name": now}</tool_call> x')]),
    (
        '<tool_call>{"name": "now", "arguments": {}</tool_call> x',
        [("content", '<tool_call>{"name": "now", "arguments": {}</tool_call> x')],
    ),
    (
        '<tool_call>{"name": "now" </tool_call>' + CALL,
        [("content", '<tool_call>{"name": "now" </tool_call>'), ("get_weather", PARIS)],
    ),
    ("<tool_call><tool_call>" + CALL, [("content", "<tool_call><tool_call>"), ("get_weather", PARIS)]),
]


@pytest.mark.parametrize(("text", "expected"), CALLS)
def test_tool_calls(text: str, expected: Split) -> None:
    check(lambda: output.native(DEMO, tools=TOOLS, prompt_tail="<|im_start|>assistant\n"), text, expected)


NEMO = (FOLDER / "mistralai-Mistral-Nemo-Instruct-2407.jinja").read_text()
NEMO_CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"[TOOL_CALLS][{NEMO_CALL}]", [("get_weather", PARIS)]),
        (f"ok[TOOL_CALLS] [{NEMO_CALL}, {NEMO_CALL}]", [("content", "ok"), ("get_weather", PARIS), ("get_weather", PARIS)]),
        (f"[TOOL_CALLS]{NEMO_CALL}", [("get_weather", PARIS)]),
        (f"[TOOL_CALLS] [{NEMO_CALL}", [("get_weather", PARIS)]),
        (f"[TOOL_CALLS][{NEMO_CALL[:-9]}", []),
        ("[TOOL_CALLS] or [1]", [("content", "[TOOL_CALLS] or [1]")]),
        ("[TOOL_CALLS][1]", [("content", "[TOOL_CALLS][1]")]),
        ("[TOOL_CALLS][", [("content", "[TOOL_CALLS][")]),
        ("[TOOL", [("content", "[TOOL")]),
    ],
)
def test_mistral_calls(text: str, expected: Split) -> None:
    check(lambda: output.native(NEMO, tools=TOOLS), text, expected)


def test_mistral_calls_bring_their_ids() -> None:
    events = output.native(NEMO, tools=TOOLS).feed(f"[TOOL_CALLS][{NEMO_CALL}]")
    assert [event.id for event in events if isinstance(event, output.ToolCall)] == ["abcdefghi"]


LLAMA = """{{ 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}"""
LLAMA_CALL = '{"name": "get_weather", "parameters": {"city": "Paris"}}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi", [("content", "Hi")]),
        (LLAMA_CALL, [("get_weather", PARIS)]),
        (f"\n{LLAMA_CALL}", [("get_weather", PARIS)]),
        (f"ok {LLAMA_CALL}", [("content", "ok "), ("get_weather", PARIS)]),
        (f"{LLAMA_CALL}; {LLAMA_CALL}\nbye", [("get_weather", PARIS), ("get_weather", PARIS), ("content", "bye")]),
        ('{"type": "function", ' + LLAMA_CALL[1:], [("get_weather", PARIS)]),
        ('{"type": "function", "function": ' + LLAMA_CALL + "}", [("get_weather", PARIS)]),
        ('{"parameters": {}, "name": "now"}', [("now", {})]),
        (LLAMA_CALL.replace("get_weather", "other"), [("content", LLAMA_CALL.replace("get_weather", "other"))]),
        ('{"name": "now"} {', [("content", '{"name": "now"} {')]),
        ('{"name" "now"}', [("content", '{"name" "now"}')]),
        ("f() { return {}; }", [("content", "f() { return {}; }")]),
        ('{"na', [("content", '{"na')]),
        ("{ ", [("content", "{ ")]),
        ('{"name": "Jo', [("content", '{"name": "Jo')]),
        (LLAMA_CALL[:-8], []),
        ("{" + LLAMA_CALL, [("content", "{"), ("get_weather", PARIS)]),
    ],
)
def test_llama_calls(text: str, expected: Split) -> None:
    check(lambda: output.native(LLAMA, tools=TOOLS), text, expected)


@pytest.mark.parametrize("tools", [None, []])
def test_without_tools_calls_are_content(tools: list[dict[str, Any]] | None) -> None:
    check(lambda: output.native(DEMO, tools=tools), f"a {CALL}", [("content", f"a {CALL}")])


def test_templates_without_a_known_dialect_give_content() -> None:
    check(lambda: output.native(PLAIN, tools=TOOLS), f" a {CALL}", [("content", f" a {CALL}")])


FAMILIES = [
    (
        (FOLDER / "Qwen3-Coder.jinja").read_text(),
        "Look. <tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        [("content", "Look."), ("get_weather", PARIS)],
    ),
    (
        (FOLDER / "GLM-4.6.jinja").read_text(),
        "\n<think>Why?</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
        [("thinking", "Why?"), ("get_weather", PARIS)],
    ),
    (
        (FOLDER / "openai-gpt-oss-120b.jinja").read_text(),
        "<|channel|>analysis<|message|>Why?<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        '<|constrain|>json<|message|>{"city": "Paris"}',
        [("thinking", "Why?"), ("get_weather", PARIS)],
    ),
    (
        (FOLDER / "deepseek-ai-DeepSeek-V3.1.jinja").read_text(),
        "Look."
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [("content", "Look."), ("get_weather", PARIS)],
    ),
    (
        "<｜tool▁calls▁begin｜> ```json </think>",
        "<think>Why?</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        [("thinking", "Why?"), ("get_weather", PARIS)],
    ),
    (
        "<tool_call> <function= </think>",
        "<think>Why?</think><tool_call><function=now></function></tool_call>",
        [("thinking", "Why?"), ("now", {})],
    ),
    (
        "<seed:tool_call> <function=",
        "<seed:think>Why?</seed:think><seed:tool_call><function=now></function></seed:tool_call>",
        [("thinking", "Why?"), ("now", {})],
    ),
    (
        "[TOOL_CALLS] [CALL_ID] [ARGS]",
        '[THINK]Why?[/THINK]Look.[TOOL_CALLS]get_weather[CALL_ID]abc[ARGS]{"city": "Paris"}[TOOL_CALLS]other[ARGS]{}',
        [("thinking", "Why?"), ("content", "Look."), ("get_weather", PARIS), ("other", {})],
    ),
    (
        "<|tool_call> <|channel>",
        '<|channel>thought\nWhy?<channel|><|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>',
        [("thinking", "Why?"), ("get_weather", PARIS)],
    ),
    ("List of tools: <|im_start|>", "<|tool_call_start|>[get_weather(city='Paris')]<|tool_call_end|>", [("get_weather", PARIS)]),
    (
        "<|START_ACTION|>",
        '<|START_THINKING|>Why?<|END_THINKING|><|START_ACTION|>[{"tool_name": "now", "parameters": {}}]<|END_ACTION|>',
        [("thinking", "Why?"), ("now", {})],
    ),
    (
        "<|tool_calls_section_begin|>",
        "Look.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>now<|tool_call_argument_begin|>{}<|tool_call_end|>'
        "<|tool_calls_section_end|>",
        [("content", "Look."), ("get_weather", PARIS), ("now", {})],
    ),
    (
        "<minimax:tool_call> </think>",
        '<think>Why?</think><minimax:tool_call>\n<invoke name="get_weather">\n'
        '<parameter name="city">Paris</parameter>\n</invoke>\n'
        '<invoke name="now">\n</invoke>\n</minimax:tool_call>',
        [("thinking", "Why?"), ("get_weather", PARIS), ("now", {})],
    ),
    ("<function_calls>", "<function_calls>get_weather(city='Paris')</function_calls>", [("get_weather", PARIS)]),
    (
        "<start_function_call>",
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>",
        [("get_weather", PARIS)],
    ),
    (
        "<|tool_call|>",
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "now"}]',
        [("get_weather", PARIS), ("now", {})],
    ),
    ("<TOOLCALL>[", 'Look. <TOOLCALL>[{"name": "now", "arguments": {}}]</TOOLCALL>', [("content", "Look. "), ("now", {})]),
    ("<tool_calls>[", '<tool_calls>[{"name": "now", "arguments": {}}]</tool_calls>\nx', [("now", {}), ("content", "x")]),
]


@pytest.mark.parametrize(("template", "text", "expected"), FAMILIES)
def test_families_by_their_jinja_templates(template: str, text: str, expected: Split) -> None:
    check(lambda: output.native(template, tools=TOOLS), text, expected)


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("<tool_call> <function=", "<tool_call>none</tool_call>x", [("content", "<tool_call>none</tool_call>x")]),
        ("<tool_call> <function=", "a <tool_call><function=f>", [("content", "a")]),
        ("[TOOL_CALLS] [ARGS]", "[TOOL_CALLS]f[ARGS]{x}", [("content", "[TOOL_CALLS]f[ARGS]{x}")]),
        ("[gMASK] <arg_key>", "<tool_call>f<arg_key>", []),
        (
            (FOLDER / "openai-gpt-oss-120b.jinja").read_text(),
            "<|channel|>commentary to=functions.now<|message|>{x",
            [("content", "{x")],
        ),
    ],
)
def test_what_is_no_call_of_a_family_is_no_error(template: str, text: str, expected: Split) -> None:
    check(lambda: output.native(template, tools=TOOLS), text, expected)


def test_calls_of_a_family_are_content_without_tools() -> None:
    text = "<tool_call><function=now></function></tool_call>"
    check(lambda: output.native("<tool_call> <function=", tools=None), text, [("content", text)])


@pytest.mark.parametrize(("tail", "text"), [("<think>\n", "Why?</think>So."), ("", "<think>Why?</think>So.")])
def test_reasoning_of_a_family_begun_by_the_prompt(tail: str, text: str) -> None:
    def make() -> output.OutputParser:
        return output.native("<tool_call> <function= </think>", tools=TOOLS, prompt_tail=f"assistant\n{tail}")

    check(make, text, [("thinking", "Why?"), ("content", "So.")])


def test_an_answer_that_continues_the_prompt_begins_with_that_text() -> None:
    prompt = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert split(lambda: output.native(DEMO, tools=TOOLS, prompt_tail=prompt), ["One, two,", " three"]) == [
        ("content", "One, two, three")
    ]


def test_calls_are_whole_and_nothing_of_a_tag_leaks() -> None:
    parser = output.native(DEMO, tools=TOOLS)
    for letter in f"Look: {CALL}":
        for event in parser.feed(letter):
            if isinstance(event, output.ToolCall):
                assert (event.name, event.arguments) == ("get_weather", PARIS)
                assert letter == "}"
            else:
                assert event == output.Content(letter)
                assert letter in "Look: "


def test_ids() -> None:
    events = output.native(DEMO, tools=TOOLS).feed(CALL + CALL)
    ids = [event.id for event in events if isinstance(event, output.ToolCall)]
    assert all(re.fullmatch("[A-Za-z0-9]{32}", name) for name in ids)
    assert len(set(ids)) == 2
    parser = GenericCalls("<tool_call>", ["get_weather"])
    (call,) = parser.feed(CALL)
    assert isinstance(call, output.ToolCall)
    assert re.fullmatch("call_[a-z0-9]{8}", call.id)


def test_preserved_tokens() -> None:
    assert output.native(DEMO, tools=TOOLS).preserved == ("<think>", "</think>", "<tool_call>", "</tool_call>")
    assert output.native(DEMO, tools=None).preserved == ("<think>", "</think>")
    assert output.native(PLAIN, tools=TOOLS).preserved == ()
    assert GenericCalls("{", []).preserved == ()
    assert GenericCalls("[TOOL_CALLS]", []).preserved == ("[TOOL_CALLS]",)


def test_long_answers_take_linear_time() -> None:
    text = '{"name": "now", "arguments": {"text": "' + "<\\n{" * 50_000 + '"}}'
    events = split(lambda: output.native(DEMO, tools=TOOLS), ["<tool_call>", *text, "</tool_call>", *"<" * 50_000])
    assert events == [("now", {"text": "<\n{" * 50_000}), ("content", "<" * 50_000)]


# ---------------------------------------------------------------- Go templates

OPEN_JSON = '{"name": "get_weather", "arguments": {"city": "Paris"}}'


@pytest.mark.parametrize(
    ("tag", "text", "expected"),
    [
        ("<tool_call>", "Hello", [("content", "Hello")]),
        ("<tool_call>", "Hello <tool", [("content", "Hello <tool")]),
        ("<tool_call>", f"Let me see. {CALL}", [("content", "Let me see. "), ("get_weather", PARIS)]),
        ("<tool_call>", f"{CALL}\n{CALL} bye", [("get_weather", PARIS)] * 2),
        ("<tool_call>", CALL[:-16], []),
        ("<tool_call>", "<tool_call> what?", []),
        ("<tool_call>", CALL.replace("get_weather", "other") + CALL, [("get_weather", PARIS)]),
        ("<tool_call>", CALL.replace("get_weather", "tools.now"), [("now", PARIS)]),
        ("<tool_call>", '<tool_call>{"arguments": {"q": "now"}, "name": "get_weather"}', [("get_weather", {"q": "now"})]),
        ("<tool_call>", '<tool_call>{"name": "get_weather_now", "arguments": {}}', [("get_weather_now", {})]),
        ("<tool_call>", '<tool_call>{"name": "get_weather", "arguments": {"a": "now"}}}', [("get_weather", {"a": "now"})]),
        ("<tool_call>", '<tool_call>{"arguments": {"a": "5"}, "name": "now"}</tool_call>', [("now", {"a": "5"})]),
        ("<tool_call>", '<tool_call>{"name": "now", "parameters": {"a": 1}}', [("now", {"a": 1})]),
        ("<tool_call>", '<tool_call>{"name": "now", "arguments": "{\\"a\\": 1}"}', [("now", {"a": 1})]),
        ("<tool_call>", '<tool_call>{"name": "now"}' + CALL, [("get_weather", PARIS)]),
        ("<tool_call>", '<tool_call>{"now": {"a": 1}}', [("now", {"a": 1})]),
        ("<tool_call>", '<tool_call>{"calls": [{"x": 1}, {"now": {"a": {}}}]}', [("now", {"a": {}})]),
        ("<tool_call>", '<tool_call>{"now": now}{"now": {"b": 2}}', [("now", {"b": 2})]),
        ("[TOOL_CALLS]", f"[TOOL_CALLS] [{OPEN_JSON}, {OPEN_JSON}][/TOOL_CALLS]", [("get_weather", PARIS)] * 2),
        (
            "<calls>",
            '<think>x</think><calls>function<sep>now\n```json\n{"city": "Rome"}\n```<end>',
            [("content", "<think>x</think>"), ("now", {"city": "Rome"})],
        ),
        ("{", OPEN_JSON, [("get_weather", PARIS)]),
        ("{", f" \n{OPEN_JSON}\n{OPEN_JSON} bye", [("content", " \n"), ("get_weather", PARIS), ("get_weather", PARIS)]),
        ("{", f"text {OPEN_JSON}", [("content", f"text {OPEN_JSON}")]),
        ("{", '{"name": "jeff"} ' + OPEN_JSON, [("content", '{"name": "jeff"} ' + OPEN_JSON)]),
        ("{", OPEN_JSON[:-3], [("content", OPEN_JSON[:-3])]),
        ("{", "for { x }", [("content", "for { x }")]),
        ("[", f"[{OPEN_JSON},{OPEN_JSON}]]", [("get_weather", PARIS)] * 2),
        ("[", f"[{OPEN_JSON}", [("get_weather", PARIS)]),
        ("[", "[special delivery] and more", [("content", "[special delivery] and more")]),
        ("[", '[{"a": [1]}] x', [("content", '[{"a": [1]}] x')]),
        ("[", '[{"a": 1}', [("content", '[{"a": 1}')]),
    ],
)
def test_generic_calls(tag: str, text: str, expected: Split) -> None:
    names = [tool["function"]["name"] for tool in TOOLS]
    check(lambda: Parser(None, GenericCalls(tag, [*names, ""])), text, expected)


@pytest.mark.parametrize(
    ("name", "names", "called"),
    [
        ("bash", ["Bash", "Read"], "Bash"),
        ("Bash", ["bash", "Bash"], "Bash"),
        ("BASH", ["bash", "Bash"], "BASH"),
        ("shell", ["Bash"], "shell"),
    ],
)
def test_calls_have_the_names_that_were_offered(name: str, names: list[str], called: str) -> None:
    text = f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>'
    check(lambda: Offered(Parser(None, hermes.make(names, True)), names), text, [(called, {})])


def test_generic_calls_of_a_name_in_another_case() -> None:
    check(lambda: Parser(None, GenericCalls("{", ["Bash"])), '{"name": "bash", "arguments": {"a": 1}}', [("Bash", {"a": 1})])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" <think>\n\n a \n</think>\n\n b", [("thinking", "a \n"), ("content", "b")]),
        ("  Hi <think>x", [("content", "  Hi <think>x")]),
        ("  ", [("content", "  ")]),
        ("<think>  </think>  ", []),
        ("<think>a</think>  <think>b</think>", [("thinking", "a"), ("content", "<think>b</think>")]),
        ("<think>", []),
    ],
)
def test_generic_reasoning(text: str, expected: Split) -> None:
    check(lambda: Parser(ThinkingSplitter(Tags("<think>", "</think>"))), text, expected)


def test_what_is_not_split_still_tells_where_reasoning_ends() -> None:
    """A grammar waits for that, whoever reads the answer."""
    for tail in ("", "<think>\n"):
        parser = output.native(DEMO, tools=None, prompt_tail=tail)
        whole = output.Unsplit(parser)
        assert whole.reasoning == parser.reasoning is not None
        assert whole.preserved == parser.preserved == ("<think>", "</think>")
    said = "<think>\nA\n</think>\n\nB"
    check(lambda: output.Unsplit(output.native(DEMO, tools=None)), said, [("content", said)])
