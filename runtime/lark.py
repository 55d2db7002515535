"""Grammars in Lark as nodes, as far as they consist of rules, terminals, strings and regular expressions without flags."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence

from runtime import expressions
from runtime.derivatives import EMPTY, Derivatives, Node, UnknownSyntax, cat, either, one_of, times

_NO_OPTIONS = re.compile(r"^%llguidance \{\}$", re.MULTILINE)  # what GBNF in Lark begins with
_SPACE = re.compile(r"(?:[ \t\r\n]|(?:#|//)[^\n]*)*")
_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"i?) | (?P<regex>/(?:\\.|[^/\\])+/[imslux]*) | (?P<rule>_?[a-z][a-z_0-9-]*) |
    (?P<terminal>_?[A-Z][A-Z_0-9-]*) | (?P<times>[*+?]|\{[0-9]+(?:,[0-9]*)?\}) | (?P<sign>[][():|])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x(..)|.)")
_LONGEST = 4000  # characters of a terminal with those that it names


@dataclasses.dataclass(frozen=True)
class Grammar:
    """Rules are nodes of numbers of terminals, and terminals nodes of bytes. The whole is the rule `start`."""

    rules: Mapping[str, Node]
    terminals: Sequence[Node]


def read(text: str) -> Grammar:
    """A grammar that llguidance has understood. Raises UnknownSyntax."""
    try:
        return _Reader(_NO_OPTIONS.sub("", text)).grammar()
    except (RecursionError, KeyError, ValueError):  # too deep, names without a meaning, odd escapes
        raise UnknownSyntax from None


def _tokens(text: str) -> list[tuple[str, str]]:
    """Kinds and texts."""
    tokens: list[tuple[str, str]] = []
    at = _SPACE.match(text).end()  # type: ignore[union-attr]  # it matches always
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise UnknownSyntax
        tokens.append((str(token.lastgroup), token[0]))
        at = _SPACE.match(text, token.end()).end()  # type: ignore[union-attr]
    return tokens


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = [*_tokens(text), ("end", "")]
        self._at = 0
        self._starts = {self._tokens[at][1]: at + 2 for at in range(len(self._tokens) - 1) if self._is_name(at)}
        self._numbers: dict[Node, int] = {}  # of the terminals that rules hold
        self._known: dict[str, tuple[Node, int]] = {}  # terminals with a name, and how long they are
        self._length = 0  # of the terminal that is being read

    def grammar(self) -> Grammar:
        names = [name for name in self._starts if name.islower()]
        if "start" not in names:
            raise UnknownSyntax
        rules = {name: self._definition(name, lexical=False) for name in names}
        return Grammar(rules, [*self._numbers])

    def _is_name(self, at: int) -> bool:
        """Whether the name of a definition stands there."""
        return self._tokens[at][0] in ("rule", "terminal") and self._tokens[at + 1][1] == ":"

    def _definition(self, name: str, *, lexical: bool) -> Node:
        before, self._at = self._at, self._starts[name]
        node = self._alternatives(lexical)
        if not self._is_over() or self._tokens[self._at][0] == "sign":
            raise UnknownSyntax
        self._at = before
        return node

    def _is_over(self) -> bool:
        """Whether a sequence ends here."""
        kind, text = self._tokens[self._at]
        return kind == "end" or text in ("|", ")", "]") or self._is_name(self._at)

    def _next(self, text: str) -> bool:
        """Whether this is next; then it is passed."""
        found = self._tokens[self._at][1] == text
        self._at += found
        return found

    def _alternatives(self, lexical: bool) -> Node:
        nodes = [self._sequence(lexical)]
        while self._next("|"):
            nodes.append(self._sequence(lexical))
        return either(nodes)

    def _sequence(self, lexical: bool) -> Node:
        parts: list[Node] = []
        while not self._is_over():
            parts.append(self._atom(lexical))
            if self._tokens[self._at][0] == "times":
                parts[-1] = expressions.repeated(parts[-1], self._tokens[self._at][1])
                self._at += 1
        return _joined(parts)

    def _atom(self, lexical: bool) -> Node:
        kind, text = self._tokens[self._at]
        self._at += 1
        self._length += len(text)
        if text in ("(", "["):
            node = self._alternatives(lexical)
            if not self._next(")" if text == "(" else "]"):
                raise UnknownSyntax
            return node if text == "(" else times(node, 0, 1)
        if kind == "rule" and not lexical and text in self._starts:
            return "rule", text
        node = self._lexeme(kind, text)
        return node if lexical or text == '""' else self._terminal(node)

    def _lexeme(self, kind: str, text: str) -> Node:
        """What a terminal consists of."""
        if kind == "terminal":
            return self._named(text)
        if kind == "regex" and text.endswith("/"):
            return expressions.read(text[1:-1])
        if kind == "string" and text.endswith('"'):
            plain = json.loads(_ESCAPE.sub(lambda escape: escape[0] if escape[1] is None else "\\u00" + escape[1], text))
            return _joined([one_of(frozenset({ord(letter)})) for letter in plain])
        raise UnknownSyntax

    def _named(self, name: str) -> Node:
        if name not in self._known:
            before, self._length = self._length, 0
            node = self._definition(name, lexical=True)
            if self._length > _LONGEST:
                raise UnknownSyntax
            self._known[name] = node, self._length
            self._length = before
        node, length = self._known[name]
        self._length += length
        return node

    def _terminal(self, node: Node) -> Node:
        """A terminal where a rule has one. It may be left out if it can be empty."""
        one = one_of(frozenset({self._numbers.setdefault(node, len(self._numbers))}))
        return times(one, 0, 1) if Derivatives(node).may_end(Derivatives.start) else one


def _joined(nodes: Sequence[Node]) -> Node:
    """One after the other."""
    whole = EMPTY
    for node in reversed(nodes):
        whole = cat(node, whole)
    return whole
