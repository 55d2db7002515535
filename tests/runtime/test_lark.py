"""runtime.lark: what grammars consist of, and which ones are not known here."""

from __future__ import annotations

import itertools

import pytest

from runtime import expressions, gbnf, lark
from runtime.derivatives import Derivatives, UnknownSyntax
from runtime.text_places import GrammarMap


def test_what_a_grammar_consists_of() -> None:
    found = lark.read('start: A ("b" | list)* "c"? "" // 1\nlist: "[" A "]"{2,3} [B]\nA: /x+/ "\\"\\x41"\n# or\nB: A | "b"\n')
    a, b, c, left, right, either = range(6)
    assert found.rules == {
        "start": (
            *("cat", ("set", {a})),
            ("cat", ("rep", ("or", {("set", frozenset({b})), ("rule", "list")}), 0, None), ("rep", ("set", {c}), 0, 1)),
        ),
        "list": (
            *("cat", ("set", {left})),
            ("cat", ("set", {a}), ("cat", ("rep", ("set", {right}), 2, 3), ("rep", ("set", {either}), 0, 1))),
        ),
    }
    assert found.terminals[a] == expressions.read('x+"A')
    assert found.terminals[either] == expressions.read('x+"A|b')


def test_terminals_that_may_be_empty_may_be_left_out() -> None:
    found = lark.read('start: A "x"\nA: /a*/\n')
    assert Derivatives(("rule", "start"), found.rules).first(0) == {0, 1}


def test_the_longest_terminal_is_read() -> None:
    chart = GrammarMap(lark.read('start: A B\nA: /a+/\nB: /[ab]+c/\n'))
    assert chart.walk(chart.start, b"aa") == chart.walk(chart.start, b"a")
    assert chart.walk(chart.start, b"aabab") == chart.walk(chart.start, b"ab")
    assert chart.walk(chart.start, b"aac") is None  # its letters are all of the first


def test_recursion_comes_back_to_the_same_places() -> None:
    sums = gbnf.in_lark('root ::= product ([-+] product)*\nproduct ::= [a-z]+ | "(" root ")"\n')[1]
    chart = GrammarMap(lark.read(sums))
    assert chart.walk(chart.start, b"ab") == chart.walk(chart.start, b"(b+c)-xyz") != chart.walk(chart.start, b"(bc")
    assert chart.walk(chart.start, b"((xy") == chart.walk(chart.start, b"(a+(b-cd")


LEFT = 'start: start "," A | A\nA: "a"\n'
NAMES = "abcdefghijklmnopqrstuvwxy"
MANY = "\n".join(f"{'start' if a == 'a' else a}: {b}? {b}?" for a, b in itertools.pairwise(NAMES)) + '\ny: "x"\n'
LARGE = "start: A\n" + MANY.partition("\n")[2].replace("?", "").upper() + "A: B B\n"
UNKNOWN = ['start: "a"i\n', "start: /a/i\n", "start: <|im_end|>\n", 'start: "a".."z"\n', "start[lazy]: /a/\n", "start: ~/a/\n"]
UNKNOWN += ["%ignore /a/\nstart: /b/\n", '%llguidance {"no_forcing": true}\nstart: "a"\n', "start: %json {}\n"]
UNKNOWN += ["start: a\n", "start: A\nA: b\nb: /x/\n"]


@pytest.mark.parametrize("text", [*UNKNOWN, LEFT, MANY, LARGE], ids=range(len(UNKNOWN) + 3))
def test_what_is_not_known(text: str) -> None:
    with pytest.raises(UnknownSyntax):
        GrammarMap(lark.read(text))
