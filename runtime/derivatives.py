"""Automata made state by state by Brzozowski's derivatives: what can go on in the same ways is the same state.

A node is what may follow: bytes, where it comes from a regular expression, or terminals, where it comes from a grammar, whose
rules it names.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Any, Generic, TypeVar

Node = tuple[Any, ...]
"""("set", symbols), ("cat", first, second), ("or", nodes), ("rep", node, least, most or None), ("rule", name); all but NOTHING
match something."""

EMPTY: Node = ("cat",)
NOTHING: Node = ("or", frozenset())
_MOST = 2000  # states
_WIDEST = 64  # ways in which a text can go on
_LONGEST = 5000  # looks at nodes on the way to a state: rules that name others twice hold more than their text shows

State = TypeVar("State", bound=Hashable)


class UnknownSyntax(Exception):
    """An expression or grammar holds what is not known here, or is too large."""


class Automaton(Generic[State]):
    """States by number, and where symbols lead from them, as far as somebody has asked."""

    start = 0

    def __init__(self, first: State) -> None:
        self._states = [first]
        self._numbers = {first: self.start}
        self._ways: list[dict[Any, int | None]] = [{}]  # of each state, by symbol

    def after(self, state: int, symbol: Any) -> int | None:
        """The state after one more symbol; None: not known, or there is none."""
        ways = self._ways[state]
        if symbol not in ways:
            try:
                ways[symbol] = self._number(self._next(self._states[state], symbol))
            except (RecursionError, UnknownSyntax):
                ways[symbol] = None
        return ways[symbol]

    def after_all(self, state: int, text: bytes) -> int | None:
        """The state after a text; None: not known, as for letters beyond ASCII, or there is none."""
        if not text.isascii():
            return None
        for byte in text:
            after = self._ways[state].get(byte)
            if after is None and (after := self.after(state, byte)) is None:
                return None
            state = after
        return state

    def _next(self, state: State, symbol: Any) -> State | None:
        raise NotImplementedError

    def _number(self, state: State | None) -> int | None:
        if state is None or (state not in self._numbers and len(self._states) == _MOST):
            return None
        if state not in self._numbers:
            self._numbers[state] = len(self._states)
            self._states.append(state)
            self._ways.append({})
        return self._numbers[state]


class Derivatives(Automaton[Node]):
    """Of a node. A symbol is a byte, or a set of terminals of which any may be meant."""

    def __init__(self, root: Node, rules: Mapping[str, Node] | None = None) -> None:
        """Raises UnknownSyntax where a rule begins with itself."""
        super().__init__(root)
        self._rules = rules or {}
        self._looks = 0
        try:
            for node in (root, *self._rules.values()):
                self._looks = 0
                self._first(node)
        except RecursionError:
            raise UnknownSyntax from None

    def is_dead(self, state: int) -> bool:
        """Whether nothing that matches begins like this."""
        return self._states[state] == NOTHING

    def may_end(self, state: int) -> bool:
        """Whether this is a match. Raises UnknownSyntax, and RecursionError."""
        self._looks = 0
        return self._may_end(self._states[state])

    def first(self, state: int) -> frozenset[Any]:
        """The symbols that may come next. Raises UnknownSyntax, and RecursionError."""
        self._looks = 0
        return self._first(self._states[state])

    def _next(self, state: Node, symbol: Any) -> Node:
        self._looks = 0
        return self._after(state, (symbol,) if isinstance(symbol, int) else symbol)

    def _look(self) -> None:
        self._looks += 1
        if self._looks > _LONGEST:
            raise UnknownSyntax

    def _after(self, node: Node, symbols: Collection[Any]) -> Node:
        """What has to follow one of the symbols."""
        self._look()
        match node:
            case ("set", members):
                return NOTHING if members.isdisjoint(symbols) else EMPTY
            case ("cat", first, second):
                way = cat(self._after(first, symbols), second)
                return either([way, self._after(second, symbols)]) if self._may_end(first) else way
            case ("or", nodes):
                return either([self._after(each, symbols) for each in nodes])
            case ("rep", inner, least, most):
                fewer = times(inner, max(least - 1, 0), most if most is None else most - 1)
                return cat(self._after(inner, symbols), fewer)
            case ("rule", name):
                return self._after(self._rules[name], symbols)
        return NOTHING

    def _may_end(self, node: Node) -> bool:
        self._look()
        match node:
            case ("cat", first, second):
                return self._may_end(first) and self._may_end(second)
            case ("or", nodes):
                return any(map(self._may_end, nodes))
            case ("rep", inner, least, _):
                return least == 0 or self._may_end(inner)
            case ("rule", name):
                return self._may_end(self._rules[name])
        return node == EMPTY

    def _first(self, node: Node) -> frozenset[Any]:
        self._look()
        match node:
            case ("set", members):
                return frozenset(members)
            case ("cat", first, second):
                return self._first(first) | (self._first(second) if self._may_end(first) else frozenset())
            case ("or", nodes):
                return frozenset[Any]().union(*map(self._first, nodes))
            case ("rep", inner, _, _):
                return self._first(inner)
            case ("rule", name):
                return self._first(self._rules[name])
        return frozenset()


# ---------------------------------------------------------------- nodes


def one_of(members: frozenset[Any]) -> Node:
    """One symbol."""
    return ("set", members) if members else NOTHING


def cat(first: Node, second: Node) -> Node:
    """One after the other."""
    if NOTHING in (first, second):
        return NOTHING
    if first == EMPTY or second == EMPTY:
        return second if first == EMPTY else first
    if first[0] == "cat":
        return "cat", first[1], cat(first[2], second)
    return "cat", first, second


def either(nodes: list[Node]) -> Node:
    """Any of these. Raises UnknownSyntax where they are too many."""
    parts = {part for node in nodes for part in (node[1] if node[0] == "or" else (node,))}
    if len(parts) > _WIDEST:
        raise UnknownSyntax
    return parts.pop() if len(parts) == 1 else ("or", frozenset(parts))


def times(node: Node, least: int, most: int | None) -> Node:
    """Again and again."""
    if most == 0 or node in (EMPTY, NOTHING):
        return EMPTY if least == 0 or node == EMPTY else NOTHING
    return node if least == most == 1 else ("rep", node, least, most)
