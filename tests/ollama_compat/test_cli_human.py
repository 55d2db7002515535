"""Sizes, times, durations and numbers in words, and the cells of tables; expected texts are what Ollama prints."""

from __future__ import annotations

import datetime
import os
import sys

import pytest

from ollama_compat.cli import human
from ollama_compat.cli.table import fitted, render, wrap
from ollama_compat.cli.width import text_width

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second ago"),
        (1.9, "1 second ago"),
        (59.9, "59 seconds ago"),
        (60, "About a minute ago"),
        (119, "About a minute ago"),
        (3599, "59 minutes ago"),
        (3600, "About an hour ago"),
        (5399, "About an hour ago"),
        (5400, "2 hours ago"),
        (47.4 * 3600, "47 hours ago"),
        (47.6 * 3600, "2 days ago"),
        (13.9 * 86400, "13 days ago"),
        (14 * 86400, "2 weeks ago"),
        (59 * 86400, "8 weeks ago"),
        (60 * 86400, "2 months ago"),
        (729 * 86400, "24 months ago"),
        (730 * 86400, "2 years ago"),
        (-59, "59 seconds from now"),
        (-5 * 60 + 1, "4 minutes from now"),
        (-20.9 * 365 * 86400, "20 years from now"),
        (-21.1 * 365 * 86400, "Forever"),
    ],
)
def test_moments(seconds: float, text: str) -> None:
    assert human.moment((NOW - datetime.timedelta(seconds=seconds)).isoformat(), NOW) == text


def test_times_that_are_none() -> None:
    assert human.moment("0001-01-01T00:00:00Z", NOW) == "Never"
    assert human.moment("", NOW) == "Never"
    assert human.moment("2026-01-01T17:29:30.123456789+05:30", NOW) == "29 seconds ago"


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999"), (1000, "1K"), (21131264, "21.13M"), (10**6, "1M"), (7 * 10**9, "7B"), (8030261248, "8.0B")]
)
def test_counts(count: int, text: str) -> None:
    assert human.number(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (0.123456789, "0.12345679"),
        (1.0, "1"),
        (123456792.0, "1.2345679e+08"),
        (1e-5, "1e-05"),
        (0.0, "0"),
        (-2.5, "-2.5"),
    ],
)
def test_single_precision(value: float, text: str) -> None:
    assert human.general(float(human.float32(value))) == text


@pytest.mark.parametrize(
    ("text", "cells"), [("abc", 3), ("日本", 4), ("é", 1), ("e\u0301", 1), ("👩\u200d💻", 2), ("🇩🇪", 1), ("a\tb", 2)]
)
def test_cells(text: str, cells: int) -> None:
    assert text_width(text) == cells


def test_wrapping_is_even_and_fast() -> None:
    assert wrap("aaa bb cc ddddd", 6).lines == ["aaa", "bb cc", "ddddd"]
    assert wrap("x" * 50, 30).lines == ["x" * 50]
    assert len(wrap("word " * 20_000, 30).lines) == 3334


def test_tables() -> None:
    assert render([["a", "1"], ["long one", "22"]], ["NAME", "N"]) == "NAME        N  \na           1     \nlong one    22    \n"
    assert render([], ["NAME"]) == "NAME \n"
    assert render([]) == ""


def test_a_terminal_that_is_too_narrow_gets_rows_in_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, header = [["decode", "24.1", "", "better"]], ["WHAT", "MOELLAMA", "OTHER", ""]
    wide = "WHAT      MOELLAMA    OTHER\ndecode    24.1                 better\n"
    assert fitted(rows, header) == wide
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for columns, text in ((80, wide), (30, "decode\n  MOELLAMA 24.1  better\n"), (18, "decode\n  MOELLAMA 24.1\n  better\n")):
        monkeypatch.setattr(os, "get_terminal_size", lambda *_, size=columns: os.terminal_size((size, 24)))
        monkeypatch.setattr(sys.stdout, "fileno", lambda: 1)
        assert fitted(rows, header) == text
