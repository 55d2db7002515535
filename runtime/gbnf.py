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
    """A grammar that in_lark's first way holds, as a regular expression; None where it is none. Lark may be just one."""
    if is_lark_syntax(text):
        found = _ONE_EXPRESSION.fullmatch(text)
        return found and found[1]
    rules = gbnf_to_lark.GrammarParser().parse(_ESCAPE.sub(_character, text))
    return _expression(rules["root"], rules, frozenset())


def _expression(node: Node, rules: Mapping[str, Node], inside: frozenset[str]) -> str | None:
    """`inside`: rules that this one is a part of."""
    match node:
        case gbnf_to_lark.LiteralNode(value=value):
            return _LETTER.sub(lambda letter: letter[0] if letter[1] is None else _plain(letter[1]), value)
        case gbnf_to_lark.RegexNode(rx=text):
            return text
        case gbnf_to_lark.RuleRefNode(name=name):
            return None if name in inside or name not in rules else _expression(rules[name], rules, inside | {name})
    parts = [_expression(part, rules, inside) for part in node.children()]
    if None in parts:
        return None
    joined = ("|" if isinstance(node, gbnf_to_lark.AlternativeNode) else "").join(map(str, parts))
    if isinstance(node, gbnf_to_lark.RepetitionNode):
        most = "" if node.max_times is None else node.max_times
        return f"(?:{joined}){{{node.min_times},{most}}}"
    return f"(?:{joined})"


def _plain(letter: str) -> str:
    """A letter that stands for itself."""
    return letter if letter.isalnum() or not letter.isascii() else "\\" + letter
