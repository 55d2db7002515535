"""Regular expressions, in the common part of what Rust, ECMAScript and Python understand, as automata for ASCII."""

from __future__ import annotations

import re
from typing import Any

from runtime.derivatives import EMPTY, Derivatives, Node, UnknownSyntax, cat, either, one_of, times

Members = frozenset[Any]
"""What a class holds: bytes of ASCII, and beyond them anything that is the same only for the same characters."""

_ALL: Members = frozenset(range(128))
_DIGITS: Members = frozenset(b"0123456789")
_LETTERS: Members = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") | _DIGITS
_SPACES: Members = frozenset(b" \t\n\v\f\r")
_NAMED = {"d": _DIGITS, "w": _LETTERS, "s": _SPACES, "D": _ALL - _DIGITS, "W": _ALL - _LETTERS, "S": _ALL - _SPACES}
_CLASSES: dict[str, Members] = {name: members | {name} for name, members in _NAMED.items()}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "v": "\v", "f": "\f"}
_NUMBERED = re.compile(r"x([0-9A-Fa-f]{2})|x\{([0-9A-Fa-f]+)\}|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]+)\}")
_TIMES = re.compile(r"[*+?]|\{[0-9]+(?:,[0-9]*)?\}")
_LONGEST = 2000  # characters of an expression


class Expression(Derivatives):
    """An expression that a whole text has to match."""

    def __init__(self, text: str) -> None:
        """Raises UnknownSyntax."""
        super().__init__(read(text))


def read(text: str) -> Node:
    """An expression as a node of bytes. Raises UnknownSyntax."""
    if len(text) > _LONGEST:
        raise UnknownSyntax
    try:
        return _Reader(text).whole()
    except RecursionError:
        raise UnknownSyntax from None


def repeated(node: Node, sign: str) -> Node:
    """As often as `*`, `+`, `?`, `{n}`, `{n,}` or `{n,m}` says."""
    if sign in ("*", "+", "?"):
        return times(node, int(sign == "+"), 1 if sign == "?" else None)
    least, comma, most = sign[1:-1].partition(",")
    return times(node, int(least), int(most or least) if most or not comma else None)


def _others(members: Members) -> Members:
    return (_ALL - members) | {("all but", members - _ALL)}


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
        return either(nodes)

    def _sequence(self) -> Node:
        node = EMPTY
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            node = cat(node, self._repeated(self._atom()))
        return node

    def _repeated(self, node: Node) -> Node:
        while found := _TIMES.match(self._text, self._at):
            self._at = found.end()
            if self._text[self._at : self._at + 1] in ("?", "+"):  # lazy or possessive
                raise UnknownSyntax
            node = repeated(node, found[0])
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
            return one_of(self._class())
        if self._next("."):
            return one_of(_others(frozenset(b"\n")))
        if self._text[self._at] in "^$*+?{}]":
            raise UnknownSyntax
        return one_of(self._members())

    def _class(self) -> Members:
        negated = self._next("^")
        members: Members = frozenset()
        while not self._next("]"):
            if self._text[self._at : self._at + 2] in ("", "[", "&&", "--", "~~") or self._text[self._at] == "[":
                raise UnknownSyntax
            first = self._members()
            ranged = self._text[self._at : self._at + 1] == "-" and self._text[self._at + 1 : self._at + 2] != "]"
            if ranged:
                self._at += 1
                first = self._range(first, self._members())
            members |= first
        return _others(members) if negated else members

    def _range(self, first: Members, last: Members) -> Members:
        if len(first) > 1 or len(last) > 1:
            raise UnknownSyntax
        ends = (*first, *last)
        return frozenset(range(ends[0], min(ends[1], 127) + 1)) | ({ends} if ends[1] > 127 else frozenset())

    def _members(self) -> Members:
        """What a character or an escape stands for."""
        if not self._next("\\"):
            self._at += 1
            return frozenset({ord(self._text[self._at - 1])})
        if numbered := _NUMBERED.match(self._text, self._at):
            self._at = numbered.end()
            return frozenset({int(numbered[numbered.lastindex or 0], 16)})
        letter = self._text[self._at : self._at + 1]
        self._at += 1
        if letter in _CLASSES:
            return _CLASSES[letter]
        if letter in _CONTROLS or (letter and not letter.isalnum()):
            return frozenset({ord(_CONTROLS.get(letter, letter))})
        raise UnknownSyntax
