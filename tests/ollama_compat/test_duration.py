from __future__ import annotations

import time

import pytest

from ollama_compat import duration


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("5s", 5_000_000_000),
        ("+5s", 5_000_000_000),
        ("1h1m1s1ms1us1ns", 3_661_001_001_001),
        (".5s", 500_000_000),
        ("1.5h", 5_400_000_000_000),
        ("-1m30s", -90_000_000_000),
        ("1µs", 1000),
        ("1μs", 1000),
        ("2.s", 2_000_000_000),
    ],
)
def test_parse(text: str, ns: int) -> None:
    assert duration.parse(text) == ns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("3", 'time: missing unit in duration "3"'),
        ("1m3", 'time: missing unit in duration "1m3"'),
        ("x", 'time: invalid duration "x"'),
        ('1\n"\\\x7fé', r'time: unknown unit "\x0a\"\\' + '\x7f' + r'\xc3\xa9" in duration "1\x0a\"\\' + '\x7f' + r'\xc3\xa9"'),
        (".s", 'time: invalid duration ".s"'),
        ("1x", 'time: unknown unit "x" in duration "1x"'),
        ("9999999999h", 'time: invalid duration "9999999999h"'),
        ("9" * 10_000 + "s", 'time: invalid duration "' + "9" * 10_000 + 's"'),
    ],
)
def test_parse_refuses_in_gos_words(text: str, message: str) -> None:
    with pytest.raises(duration.DurationError) as caught:
        duration.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "quoted"), [('a"b', '"a\\"b"'), ("a\nb", '"a\\nb"'), ("é🦙", '"é🦙"'), ("\x01", '"\\x01"'), ("\u2028", '"\\u2028"')]
)
def test_quote(text: str, quoted: str) -> None:
    assert duration.quote(text) == quoted


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "1970-01-01T00:00:00Z"), (1_500_000_000, "1970-01-01T00:00:01.5Z"), (123_456_789, "1970-01-01T00:00:00.123456789Z")],
)
def test_utc(ns: int, text: str) -> None:
    assert duration.utc(ns) == text


@pytest.mark.parametrize(
    ("zone", "text"),
    [("UTC", "1970-01-01T00:00:00Z"), ("CET-1", "1970-01-01T01:00:00+01:00"), ("XST3:30", "1969-12-31T20:30:00-03:30")],
)
def test_local(monkeypatch: pytest.MonkeyPatch, zone: str, text: str) -> None:
    with monkeypatch.context() as context:
        context.setenv("TZ", zone)
        time.tzset()
        assert duration.local(0) == text
    time.tzset()


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (54978139, "54.978139ms"),
        (10**9, "1s"),
        (1_050_000_000, "1.05s"),
        (61 * 10**9, "1m1s"),
        (3600 * 10**9, "1h0m0s"),
        (-90 * 10**9, "-1m30s"),
        (90061 * 10**9 + 5, "25h1m1.000000005s"),
    ],
)
def test_text(ns: int, text: str) -> None:
    assert duration.text(ns) == text
