"""JSON in a model's text."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest

from ollama_compat.output.tool_json import Scanner, load_object, named_call


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("{}", 0, 2),
        ("a {} b", 2, 4),
        ('{"a": {"b": [1, {}]}} {}', 0, 21),
        ('{"}": "\\"}", "\\\\": "}"}', 0, 23),
        ("] } {} ", 4, 6),
        ("{", 0, -1),
        ('"{}', -1, -1),
    ],
)
def test_scanner(text: str, start: int, end: int) -> None:
    whole = Scanner()
    assert whole.scan(text) == end
    assert whole.start == start
    pieces = Scanner()
    ends = [pieces.scan(text[:length]) for length in range(1, (end if end > 0 else len(text)) + 1)]
    assert ends[-1] == end
    assert pieces.start == start
    assert set(ends[:-1]) <= {-1}


def test_scanner_goes_on_behind_an_object() -> None:
    scanner = Scanner("{}")
    assert [scanner.scan("[{}, {}]") for _ in range(3)] == [3, 7, -1]
    assert scanner.start == 5


def test_scanner_sees_what_cannot_be() -> None:
    scanner = Scanner(never="<")
    assert scanner.scan('{"a<": <b>}') == -1
    assert scanner.broken
    assert not Scanner(never="<").broken


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"b": 1, "a": [true, null, 1.5]}', {"b": 1, "a": [True, None, 1.5]}),
        ('{"a": "x\ny\tz"}', {"a": "x\ny\tz"}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ('{"a": "\\ud800x"}', {"a": "?x"}),
        ('{"a": 18446744073709551615}', {"a": 18446744073709551615}),
        ('{"a": 18446744073709551616}', {"a": 18446744073709551616.0}),
        ('{"a": ' + "9" * 5000 + "}", {"a": math.inf}),
        ("[]", None),
        ("{", None),
        ("{a: 1}", None),
        ('{"a": ' + "[" * 400 + "]" * 400 + "}", None),
        ('{"a": ' * 100_000, None),
    ],
)
def test_load_object(text: str, value: dict[str, Any] | None) -> None:
    assert load_object(text) == value
    orjson.dumps(load_object(text))
    assert list(load_object(text) or ()) == list(value or ())


@pytest.mark.parametrize(
    ("value", "call"),
    [
        ({"name": "f", "arguments": {"a": 1}}, ("f", {"a": 1})),
        ({"name": "f", "parameters": {"a": 1}}, ("f", {"a": 1})),
        ({"name": "f", "arguments": {"a": 1}, "parameters": {}}, ("f", {"a": 1})),
        ({"name": "f"}, ("f", {})),
        ({"name": "f", "arguments": '{"a": 1}'}, ("f", {"a": 1})),
        ({"type": "function", "function": {"name": "f", "arguments": {}}}, ("f", {})),
        ({"name": "f", "arguments": "a"}, None),
        ({"name": "f", "arguments": [1]}, None),
        ({"name": 1, "arguments": {}}, None),
        ({"name": "", "arguments": {}}, None),
        ({"arguments": {}}, None),
        ({}, None),
    ],
)
def test_named_call(value: dict[str, Any], call: tuple[str, dict[str, Any]] | None) -> None:
    assert named_call(value) == call
