"""GBNF, llama.cpp's form of grammars, in Lark as llguidance reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llguidance import gbnf_to_lark
from llguidance.gbnf_to_lark import any_to_lark, is_lark_syntax

Node = Any  # llguidance.gbnf_to_lark.ASTNode, of a module without types

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)
_ONE_EXPRESSION = re.compile(r"\s*start\s*:\s*/((?:[^/\\\n]|\\.)+)/\s*")
_LONGEST = 2000  # bytes
_LETTER = re.compile(r"\\x..|\\[nrt]|\\?(.)", re.DOTALL)


def in_lark(text: str) -> list[str]:
    """Ways to write a grammar, the best first, of which those before the last may not compile. Lark stays as it is. Raises
    Exception, as the converter does, where the text is neither.

    A grammar that is regular can be one expression: that is followed in a third of the time, and to the letter, while rules one
    by one take as much text as they can, be it that of the next rule.
    """
    if is_lark_syntax(text):
        return [text]
    lark = any_to_lark(_ESCAPE.sub(_character, text))
    return [re.sub(r"(?m)^start:", "WHOLE_TEXT:", lark, count=1) + "\nstart: WHOLE_TEXT\n", lark]


def _character(escape: re.Match[str]) -> str:
    """A character for its number: the converter drops zeros that Lark needs."""
    digits = escape[1] or escape[2]
    if digits is None:
        return escape[0]
    return f"\\x{digits[-2:]}" if int(digits, 16) < 0x80 else chr(int(digits, 16))


def as_expression(text: str) -> str | None:
    """A grammar that in_lark's first way holds, as a regular expression; None where it is none, or a long one. Lark may be just
    one."""
    if is_lark_syntax(text):
        found = _ONE_EXPRESSION.fullmatch(text)
        return found and found[1]
    try:
        return _Expressions(gbnf_to_lark.GrammarParser().parse(_ESCAPE.sub(_character, text))).rule("root")
    except (_NoExpression, RecursionError):
        return None


class _NoExpression(Exception):
    """The grammar is none, or would be too long."""


class _Expressions:
    """Those that the rules of a grammar are."""

    def __init__(self, rules: Mapping[str, Node]) -> None:
        self._rules = rules
        self._known: dict[str, str] = {}
        self._inside: set[str] = set()

    def rule(self, name: str) -> str:
        """That of a rule. Raises _NoExpression."""
        if name in self._inside or name not in self._rules:
            raise _NoExpression
        if name not in self._known:
            self._inside.add(name)
            self._known[name] = self._of(self._rules[name])
            self._inside.remove(name)
        return self._known[name]

    def _of(self, node: Node) -> str:
        match node:
            case gbnf_to_lark.LiteralNode(value=value):
                return _LETTER.sub(lambda letter: letter[0] if letter[1] is None else _plain(letter[1]), value)
            case gbnf_to_lark.RegexNode(rx=text):
                return str(text)
            case gbnf_to_lark.RuleRefNode(name=name):
                return self.rule(name)
        joined = ("|" if isinstance(node, gbnf_to_lark.AlternativeNode) else "").join(map(self._of, node.children()))
        if len(joined) > _LONGEST:
            raise _NoExpression
        times = isinstance(node, gbnf_to_lark.RepetitionNode)
        most = "" if not times or node.max_times is None else node.max_times
        return f"(?:{joined}){{{node.min_times},{most}}}" if times else f"(?:{joined})"


def _plain(letter: str) -> str:
    """A letter that stands for itself."""
    return letter if letter.isalnum() or not letter.isascii() else "\\" + letter
