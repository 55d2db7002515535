"""runtime.patterns: what ECMAScript's patterns match, and no more, where Rust's syntax means something else."""

from __future__ import annotations

import json

import pytest
from toy_model import EOS, make_tokenizer

from runtime.grammar import Grammars
from runtime.patterns import in_rust, unreadable

GRAMMARS = Grammars(make_tokenizer())

CASES = [
    (r"^[a-z&&[^x]]$", ["a]", "&]", "x]"], ["b", "a"]),
    (r"^[a&&]$", ["a", "&"], ["b"]),
    (r"^[a~~]$", ["a", "~"], [""]),
    (r"^[+--]$", ["+", ",", "-"], ["."]),
    (r"^[--0]$", ["-", ".", "0"], ["+"]),
    (r"^[\w-]$", ["-", "w"], ["+"]),
    (r"^[a\-z]$", ["-", "a"], ["b"]),
    (r"^[[]$", ["["], ["a"]),
    (r"^[^[\]]$", ["a"], ["[", "]"]),
    (r"^[^]$", ["a", "\n", "]"], [""]),
    (r"^a[]?$", ["a"], ["a]", "aa"]),
    (r"^[\b]\0\cJ$", ["\b\0\n"], ["b0J"]),
    (r"^[\0-\x02\]]$", ["\0", "\x01", "]"], ["0"]),
    (r"^a{1$", ["a{1"], ["a"]),
    (r"^{[}]{2}x{1,}$", ["{}}x", "{}}xx"], ["{}x"]),
    (r"^.$", ["a", "é", " "], ["\n", "\r", "\u2028"]),
    (r"^\.[.]$", [".."], ["a.", ".a"]),
    (r"^\u{e9}\u00e9\p{Lu}\/\-$", ["ééÀ/-"], ["ééà/-"]),
    (r"^\d\w\S$", ["1ab"], ["٣ab", "1éb", "1a "]),
]


def matches(schema: dict[str, object], value: object) -> bool:
    constraint = GRAMMARS.constraint(json.dumps(schema))
    taken = all(constraint.take(byte) for byte in json.dumps(value, ensure_ascii=False).encode())
    return taken and constraint.take(EOS)


@pytest.mark.parametrize(("pattern", "matching", "others"), CASES)
def test_what_a_pattern_matches(pattern: str, matching: list[str], others: list[str]) -> None:
    for text, expected in [*((text, True) for text in matching), *((text, False) for text in others)]:
        assert matches({"type": "string", "pattern": pattern}, text) == expected, text


def test_names_by_patterns() -> None:
    schema: dict[str, object] = {"type": "object", "patternProperties": {"^[[]$": {"const": 1}}, "additionalProperties": False}
    assert matches(schema, {"[": 1})
    assert not matches(schema, {"[": 2})
    assert not matches(schema, {"a": 1})


UNCHANGED = ["", "\\", "[", "[^", "[a", "[a\\", "a{", "\\u{", "\\c", "(", "a-z", r"^\d{3}-\d{4}$", "[a-z]{2,}"]


@pytest.mark.parametrize("pattern", UNCHANGED)
def test_what_needs_no_change_has_none(pattern: str) -> None:
    assert in_rust(pattern).replace(r"\{", "{") == pattern


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("^(?=a)", "looking around"),
        ("a(?<!b)", "looking around"),
        (r"(a)\1", "a reference to a group"),
        (r"(?<n>a)\k<n>", "a reference to a group"),
        (r"\bfoo\b", "a word boundary"),
        (r"[]\b", "a word boundary"),
        (r"[\b]", ""),
        (r"[^\]\b]", ""),
        (r"\\b\(?!", ""),
        (r"(?:a)(?<n>b)[(?=]", ""),
    ],
)
def test_what_no_grammar_can_hold_an_answer_to(pattern: str, why: str) -> None:
    assert unreadable(pattern) == why
