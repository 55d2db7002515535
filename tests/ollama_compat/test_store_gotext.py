"""Values as Go prints them. What is expected was printed by Ollama 0.33 for a model created with these parameters."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_compat.store import gotext
from ollama_compat.store.show import parameters

CASES: list[tuple[Any, str, str, str]] = [
    # value, %#v, %v, JSON
    (1048576, "1.048576e+06", "1.048576e+06", "1048576"),
    (1000000, "1e+06", "1e+06", "1000000"),
    (123456, "123456", "123456", "123456"),
    (100000, "100000", "100000", "100000"),
    (123456789.5, "1.234567895e+08", "1.234567895e+08", "123456789.5"),
    (9007199254740993, "9.007199254740992e+15", "9.007199254740992e+15", "9007199254740992"),
    (0.00001, "1e-05", "1e-05", "0.00001"),
    (0.0001, "0.0001", "0.0001", "0.0001"),
    (1e-7, "1e-07", "1e-07", "1e-7"),
    (1e21, "1e+21", "1e+21", "1e+21"),
    (0, "0", "0", "0"),
    (-1, "-1", "-1", "-1"),
    (4096.0, "4096", "4096", "4096"),
    (0.7, "0.7", "0.7", "0.7"),
    (True, "true", "true", "true"),
    (None, "<nil>", "<nil>", "null"),
    ('a"b\x01é\u200b', r'"a\"b\x01é\u200b"', 'a"b\x01é\u200b', '"a\\"b\\u0001é\u200b"'),
    ("<a&b>", '"<a&b>"', "<a&b>", '"\\u003ca\\u0026b\\u003e"'),
    ([1, 2], "[]interface {}{1, 2}", "[1 2]", "[1,2]"),
    (
        {"z": 1, "a": [1, "x", None, 2.5]},
        'map[string]interface {}{"a":[]interface {}{1, "x", interface {}(nil), 2.5}, "z":1}',
        "map[a:[1 x <nil> 2.5] z:1]",
        '{"a":[1,"x",null,2.5],"z":1}',
    ),
]


@pytest.mark.parametrize(("value", "syntax", "plain", "encoded"), CASES)
def test_a_value_is_printed_as_go_prints_it(value: Any, syntax: str, plain: str, encoded: str) -> None:
    assert gotext.syntax(value) == syntax
    assert gotext.plain(value) == plain
    assert gotext.json_line(value) == encoded.encode() + b"\n"


def test_structs_keep_the_order_of_their_fields() -> None:
    assert gotext.json_line({"role": "user", "content": "x"}, is_map=False) == b'{"role":"user","content":"x"}\n'


def test_parameters_are_shown_in_columns() -> None:
    assert parameters({"stop": ["<|a|>", "b"], "num_ctx": 4096, "temperature": 0.0}) == (
        'num_ctx                        4096\nstop                           "<|a|>"\n'
        'stop                           "b"\ntemperature                    0'
    )
