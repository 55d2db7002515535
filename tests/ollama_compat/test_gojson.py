from __future__ import annotations

from typing import Any

import pytest

from ollama_compat import gojson
from ollama_compat.gojson import Number


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1, "b": [true, null, "x"]}', {"a": "1", "b": [True, None, "x"]}),
        (b' \n{"a":1} trailing', {"a": "1"}),
        (b'{"a":1,"a":2}', {"a": "2"}),
        (b'"\\ud83e\\udd99"', "🦙"),
        (b'"a\\ud800b"', "a\ufffdb"),
        (b'"\\udd99\\ud83e"', "\ufffd\ufffd"),
        (b'"\xff\xfe"', "\ufffd\ufffd"),
        (b'{"k\\ud800":["\\udfff"]}', {"k\ufffd": ["\ufffd"]}),
        (b"1e400", "1e400"),
        (b"12345678901234567890123", "12345678901234567890123"),
        (b"[]", []),
        (b"{}", {}),
    ],
)
def test_reads_what_go_reads(body: bytes, value: object) -> None:
    assert gojson.loads(body) == value


@pytest.mark.parametrize("body", [b"", b"  \n\t\r "])
def test_nothing_is_no_body(body: bytes) -> None:
    with pytest.raises(gojson.NoBody):
        gojson.loads(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"hello", "invalid character 'h' looking for beginning of value"),
        (b"{", "unexpected EOF"),
        (b'{"a":1', "unexpected EOF"),
        (b'{"a', "unexpected EOF"),
        (b'{"a":nul', "unexpected EOF"),
        (b'{"a":-', "unexpected EOF"),
        (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b":2}', "invalid character '\"' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b'{"a":01}', "invalid character '1' after object key:value pair"),
        (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        (b'{"a":-Infinity}', "invalid character 'I' in numeric literal"),
        (b'{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
        (b'{"a":1e+}', "invalid character '}' in exponent of numeric literal"),
        (b'{"a":trve}', "invalid character 'v' in literal true (expecting 'u')"),
        (b'{"a":"x\ny"}', "invalid character '\\n' in string literal"),
        (b'{"a":"\x1f"}', "invalid character '\\x1f' in string literal"),
        (b'{"a":"\\x"}', "invalid character 'x' in string escape code"),
        (b'{"a":"\\u12g4"}', "invalid character 'g' in \\u hexadecimal character escape"),
        (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
        (b"\xff\xfe{\x00}\x00", "invalid character 'ÿ' looking for beginning of value"),
        (b"\x1f\x8b", "invalid character '\\x1f' looking for beginning of value"),
        (b"1.", "unexpected EOF"),
        (b"1.x", "invalid character 'x' after decimal point in numeric literal"),
        (b"[" * 10_001, "invalid character '[' exceeded max depth"),
    ],
)
def test_says_what_is_wrong_in_gos_words(body: bytes, message: str) -> None:
    with pytest.raises(gojson.SyntaxFault) as caught:
        gojson.loads(body)
    assert str(caught.value) == message


@pytest.mark.parametrize(("opening", "middle", "closing"), [(b"[", b"", b"]"), (b'{"a":', b"1", b"}"), (b'[{"a":', b"1", b"}]")])
def test_depth_costs_no_recursion(opening: bytes, middle: bytes, closing: bytes) -> None:
    gojson.loads(opening * 4_000 + middle + closing * 4_000)


def test_members_are_told_as_often_as_they_stand_there() -> None:
    value = gojson.loads(b'{"a":1,"b":"\\ud800","a":null}')
    assert list(gojson.members(value)) == [("a", "1"), ("b", "\ufffd"), ("a", None)]
    assert value == {"a": None, "b": "\ufffd"}


def test_the_slow_reader_reads_the_same() -> None:
    body = b'{"a":[1,-2.5e3,"\\u00e9\\n",{"b":{}},[]],"c":false,"":null}'
    text = body.decode()
    assert gojson._Scanner(text).value(0) == (gojson.loads(body), len(text))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "unexpected end of JSON input"),
        (" \n", "unexpected end of JSON input"),
        ('{"a":', "unexpected end of JSON input"),
        ('"a', "unexpected end of JSON input"),
        ('{"a":1}x', "invalid character 'x' after top-level value"),
        ("10m", "invalid character 'm' after top-level value"),
        ("null}", "invalid character '}' after top-level value"),
        ('{} {"a":1}', "invalid character '{' after top-level value"),
        ("nul", "invalid character ' ' in literal null (expecting 'l')"),
        ("[1.", "invalid character ' ' after decimal point in numeric literal"),
        ('"\\', "invalid character ' ' in string escape code"),
        ("[1,}", "invalid character '}' looking for beginning of value"),
    ],
)
def test_what_is_wrong_with_a_whole_text(body: str, message: str) -> None:
    with pytest.raises(gojson.SyntaxFault) as caught:
        gojson.unmarshal(body.encode())
    assert str(caught.value) == message


def test_a_whole_text() -> None:
    assert gojson.unmarshal(b' {"a": [1]}\n') == {"a": ["1"]}
    assert gojson.unmarshal(b"-1.5 ") == "-1.5"


@pytest.mark.parametrize(
    ("text", "whole"), [("1", True), ("-9223372036854775808", True), ("9223372036854775808", False), ("1.0", False)]
)
def test_a_number_knows_whether_go_reads_it_into_an_int(text: str, whole: bool) -> None:
    assert Number(text).is_int is whole


def test_plain_turns_numbers_into_numbers() -> None:
    assert gojson.plain(gojson.loads(b'{"a":[1,1.5,1e2,"x"]}')) == {"a": [1, 1.5, 100.0, "x"]}


def test_text_of_keeps_order_and_numbers() -> None:
    assert gojson.text_of(gojson.loads('{"z": 1.0, "a": ["é\\"", null, true]}'.encode())) == '{"z":1.0,"a":["é\\"",null,true]}'


def test_dumps_says_when_a_value_is_too_deep() -> None:
    value: Any = 1
    for _ in range(300):
        value = [value]
    with pytest.raises(RecursionError):
        gojson.dumps(value)
    with pytest.raises(TypeError):
        gojson.dumps(1 << 64)


def test_what_is_written_escapes_what_go_escapes() -> None:
    value, text = {"a": ["<b>&\u2028é", 1]}, '{"a":["\\u003cb\\u003e\\u0026\\u2028é",1]}'
    assert gojson.dumps(value) == text.encode()
    assert gojson.escaped(value) == text
    assert gojson.escaped([1 << 64]) == "[18446744073709551616]"
