"""runtime.expressions: the same texts match as in Python's re, and texts that can go on in the same ways share a state."""

from __future__ import annotations

import random
import re

import pytest

from runtime.derivatives import UnknownSyntax
from runtime.expressions import Expression

ATOMS = ["a", "b", "c", "[ab]", "[^a]", ".", r"\d", r"\W", "[a-c0-1]", r"\.", r"[\w.]", "[+-]", r"\x61", r"[^\d]", "é"]
TIMES = ["*", "+", "?", "{2}", "{1,3}", "{2,}", "{0,2}", "{0}"]


def made(chance: random.Random, depth: int) -> str:
    kind = chance.randrange(5 if depth else 2)
    if kind == 2:
        return f"(?:{made(chance, depth - 1)}|{made(chance, depth - 1)})"
    if kind == 3:
        return f"({made(chance, depth - 1)}){chance.choice(TIMES)}"
    return "".join(made(chance, depth - 1) for _ in range(2)) if kind == 4 else chance.choice(ATOMS)


def matches(expression: Expression, text: str) -> bool:
    state = expression.after_all(expression.start, text.encode())
    return state is not None and expression.may_end(state)


@pytest.mark.parametrize("seed", range(20))
def test_what_matches(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        text = made(chance, 3)
        expression, twin = Expression(text), re.compile(text, re.ASCII)
        for _ in range(12):
            said = "".join(chance.choice("abc01.+") for _ in range(chance.randrange(7)))
            assert matches(expression, said) == bool(twin.fullmatch(said)), (text, said)


@pytest.mark.parametrize(
    ("text", "one", "other"),
    [
        ("(a|b)*c", "abba", "b"),
        ("[A-Z][a-z]*( [a-z]+)*", "Hello wor", "A b c"),
        ("a{2,}b", "aaaa", "aa"),
        ("(ab|ac)+", "acab", "ab"),
        ("(a{0,3}){0,4}b*", "b", "aab"),
    ],
)
def test_states_are_shared(text: str, one: str, other: str) -> None:
    expression = Expression(text)
    assert expression.after_all(0, one.encode()) == expression.after_all(0, other.encode()) is not None


def test_states_are_told_apart() -> None:
    expression = Expression("a{2,3}b|c")
    states = [expression.after_all(0, text) for text in (b"", b"a", b"aa", b"aaa", b"aab")]
    assert len({*states}) == 5
    dead = expression.after_all(0, b"cc")
    assert dead is not None
    assert expression.is_dead(dead)
    assert expression.after_all(0, "é".encode()) is None


LARGE = ["(" * 900 + "a" + ")" * 900, "|".join(f"{i}b" for i in range(300)), "a" * 3000]
UNKNOWN = ["a*?", "(?i)a", "(?=a)b", "a\\b", "^a", "a$", "[[:alpha:]]", "[a&&b]", "(a", "a)", "[a", "\\", "\\p{L}", "*"]


@pytest.mark.parametrize("text", UNKNOWN + LARGE, ids=range(len(UNKNOWN + LARGE)))
def test_what_is_not_known(text: str) -> None:
    with pytest.raises(UnknownSyntax):
        Expression(text)


def test_too_wide_states_are_not_known() -> None:
    expression = Expression(".*a.{80}b")  # which of the last eighty letters were an a?
    assert expression.after_all(0, b"a" * 60) is not None
    assert expression.after_all(0, b"a" * 80) is None


def test_too_many_states_are_not_known() -> None:
    expression = Expression("(a|b)*a(a|b){12}")  # which of the last twelve letters were an a?
    chance = random.Random(0)
    text = "".join(chance.choice("ab") for _ in range(20000)).encode()
    assert expression.after_all(0, text) is None
    assert expression.after_all(0, text[:100]) is not None
