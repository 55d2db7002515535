"""Regular expressions as automata, made state by state by Brzozowski's derivatives: texts that can go on in the same ways lead to
the same state. For ASCII, in the common part of what Rust, ECMAScript and Python understand.
"""

from __future__ import annotations

import re
from typing import Any

Node = tuple[Any, ...]
"""("set", bytes), ("cat", first, second), ("or", nodes), ("rep", node, least, most or None); all but NOTHING match some text."""

EMPTY: Node = ("cat",)
NOTHING: Node = ("or", frozenset())
_ALL = frozenset(range(128))
_DIGITS = frozenset(b"0123456789")
_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") | _DIGITS
_SPACES = frozenset(b" \t\n\v\f\r")
_CLASSES = {"d": _DIGITS, "w": _LETTERS, "s": _SPACES, "D": _ALL - _DIGITS, "W": _ALL - _LETTERS, "S": _ALL - _SPACES}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "v": "\v", "f": "\f"}
_NUMBERED = re.compile(r"x([0-9A-Fa-f]{2})|x\{([0-9A-Fa-f]+)\}|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]+)\}")
_TIMES = re.compile(r"\*|\+|\?|\{([0-9]+)(?:(,)([0-9]*))?\}")
_LONGEST = 2000  # bytes of an expression
_MOST = 2000  # states
_WIDEST = 64  # ways in which a text can go on


class UnknownSyntax(Exception):
    """The expression holds what is not known here, or is too large."""


class _TooWide(Exception):
    """A state that consists of too many."""


class Expression:
    """An expression that a whole text has to match."""

    start = 0

    def __init__(self, text: str) -> None:
        """Raises UnknownSyntax."""
        if len(text) > _LONGEST:
            raise UnknownSyntax
        try:
            root = _Reader(text).whole()
        except (RecursionError, _TooWide):
            raise UnknownSyntax from None
        self._nodes = [root]
        self._numbers = {root: self.start}
        self._after: dict[tuple[int, int], int | None] = {}

    def after(self, state: int, byte: int) -> int | None:
        """The state after one more byte of ASCII; None: not known."""
        way = (state, byte)
        if way not in self._after:
            try:
                self._after[way] = self._number(_after(self._nodes[state], byte))
            except (RecursionError, _TooWide):
                self._after[way] = None
        return self._after[way]

    def after_all(self, state: int, text: bytes) -> int | None:
        """The state after a text; None: not known, as for letters beyond ASCII."""
        at: int | None = state
        for byte in text:
            at = None if at is None or byte >= 0x80 else self.after(at, byte)
        return at

    def is_dead(self, state: int) -> bool:
        """Whether no text that matches begins like this."""
        return self._nodes[state] == NOTHING

    def _number(self, node: Node) -> int | None:
        if node not in self._numbers:
            if len(self._nodes) == _MOST:
                return None
            self._numbers[node] = len(self._nodes)
            self._nodes.append(node)
        return self._numbers[node]


# ---------------------------------------------------------------- derivatives


def _after(node: Node, byte: int) -> Node:
    """What has to follow the byte."""
    match node:
        case ("set", members):
            return EMPTY if byte in members else NOTHING
        case ("cat", first, second):
            way = _cat(_after(first, byte), second)
            return _either([way, _after(second, byte)]) if _may_end(first) else way
        case ("or", nodes):
            return _either([_after(each, byte) for each in nodes])
        case ("rep", inner, least, most):
            fewer = _times(inner, max(least - 1, 0), most if most is None else most - 1)
            return _cat(_after(inner, byte), fewer)
    return NOTHING


def _may_end(node: Node) -> bool:
    match node:
        case ("cat", first, second):
            return _may_end(first) and _may_end(second)
        case ("or", nodes):
            return any(map(_may_end, nodes))
        case ("rep", inner, least, _):
            return least == 0 or _may_end(inner)
    return node == EMPTY


def _one_of(members: frozenset[int]) -> Node:
    return ("set", members) if members else NOTHING


def _cat(first: Node, second: Node) -> Node:
    if NOTHING in (first, second):
        return NOTHING
    if first == EMPTY or second == EMPTY:
        return second if first == EMPTY else first
    if first[0] == "cat":
        return "cat", first[1], _cat(first[2], second)
    return "cat", first, second


def _either(nodes: list[Node]) -> Node:
    parts = {part for node in nodes for part in (node[1] if node[0] == "or" else (node,))}
    if len(parts) > _WIDEST:
        raise _TooWide
    return parts.pop() if len(parts) == 1 else ("or", frozenset(parts))


def _times(node: Node, least: int, most: int | None) -> Node:
    if most == 0 or node in (EMPTY, NOTHING):
        return EMPTY if least == 0 or node == EMPTY else NOTHING
    return node if least == most == 1 else ("rep", node, least, most)


# ---------------------------------------------------------------- syntax


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def whole(self) -> Node:
        node = self._alternatives()
        if self._at < len(self._text):
            raise UnknownSyntax
        return node

    def _next(self, text: str) -> bool:
        """Whether this is next; then it is passed."""
        found = self._text.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _alternatives(self) -> Node:
        nodes = [self._sequence()]
        while self._next("|"):
            nodes.append(self._sequence())
        return _either(nodes)

    def _sequence(self) -> Node:
        node = EMPTY
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            node = _cat(node, self._repeated(self._atom()))
        return node

    def _repeated(self, node: Node) -> Node:
        while times := _TIMES.match(self._text, self._at):
            self._at = times.end()
            if self._text[self._at : self._at + 1] in ("?", "+"):  # lazy or possessive
                raise UnknownSyntax
            if times[1]:
                least = int(times[1])
                node = _times(node, least, least if not times[2] else int(times[3]) if times[3] else None)
            else:
                node = _times(node, int(times[0] == "+"), 1 if times[0] == "?" else None)
        return node

    def _atom(self) -> Node:
        if self._next("("):
            if not self._next("?:") and self._text.startswith("?", self._at):
                raise UnknownSyntax
            node = self._alternatives()
            if not self._next(")"):
                raise UnknownSyntax
            return node
        if self._next("["):
            return _one_of(self._class())
        if self._next("."):
            return _one_of(_ALL - {ord("\n")})
        if self._text[self._at] in "^$*+?{}]":
            raise UnknownSyntax
        return _one_of(self._members())

    def _class(self) -> frozenset[int]:
        negated = self._next("^")
        members: frozenset[int] = frozenset()
        while not self._next("]"):
            if self._text[self._at : self._at + 2] in ("", "[", "&&", "--", "~~") or self._text[self._at] == "[":
                raise UnknownSyntax
            first = self._members()
            ranged = self._text[self._at : self._at + 1] == "-" and self._text[self._at + 1 : self._at + 2] != "]"
            if ranged:
                self._at += 1
                first = self._range(first, self._members())
            members |= first
        return _ALL - members if negated else members

    def _range(self, first: frozenset[int], last: frozenset[int]) -> frozenset[int]:
        if len(first) > 1 or len(last) > 1:
            raise UnknownSyntax
        return frozenset(range(min(first, default=128), max(last, default=127) + 1))  # beyond ASCII there are none

    def _members(self) -> frozenset[int]:
        """What a character or an escape stands for, as far as it is ASCII."""
        if not self._next("\\"):
            self._at += 1
            return _ALL & {ord(self._text[self._at - 1])}
        if numbered := _NUMBERED.match(self._text, self._at):
            self._at = numbered.end()
            return _ALL & {int(numbered[numbered.lastindex or 0], 16)}
        letter = self._text[self._at : self._at + 1]
        self._at += 1
        if letter in _CLASSES:
            return _CLASSES[letter]
        if letter in _CONTROLS or (letter and not letter.isalnum()):
            return _ALL & {ord(_CONTROLS.get(letter, letter))}
        raise UnknownSyntax
