"""Places in plain text (see runtime.places): text until a tag, and text that follows a grammar."""

from __future__ import annotations

import math

from runtime.derivatives import Automaton, Derivatives, UnknownSyntax
from runtime.lark import Grammar

Terminals = tuple[tuple[int, int], ...]
"""Those that are being read, and the state of each."""
State = tuple[int, Terminals]
"""That of the rules, and of the terminals."""


class GrammarMap(Automaton[State]):
    """For texts that follow a grammar, as llguidance reads them: bytes belong to one terminal while any that may stand here can
    go on with them, and all that end then have been read."""

    marks = b""
    exact = True
    counts = False

    def __init__(self, grammar: Grammar) -> None:
        """Raises UnknownSyntax."""
        self._rules = Derivatives(("rule", "start"), grammar.rules)
        self._terminals = [Derivatives(node) for node in grammar.terminals]
        super().__init__((self._rules.start, self._begun(self._rules.start)))

    def lasting(self, at: int) -> bool:
        """All places are."""
        return True

    def distance(self, at: int) -> float:
        """What may come depends on the place."""
        return 0

    def behind_bound(self, at: int) -> int:
        """Nothing is counted."""
        return at

    def letters(self, text: bytes) -> int:
        """What may come depends on the place."""
        return 0

    def walk(self, at: int, text: bytes) -> int | None:
        """Where a text leads; None: off the map, as letters beyond ASCII are."""
        return self.after_all(at, text)

    def _next(self, state: State, symbol: int) -> State | None:
        rules, terminals = state
        if further := self._further(terminals, symbol):
            return rules, further
        ended = frozenset(number for number, at in terminals if self._terminals[number].may_end(at))
        after = self._rules.after(rules, ended)
        further = () if after is None else self._further(self._begun(after), symbol)
        return (after, further) if after is not None and further else None

    def _begun(self, rules: int) -> Terminals:
        return tuple((number, Derivatives.start) for number in sorted(self._rules.first(rules)))

    def _further(self, terminals: Terminals, byte: int) -> Terminals:
        """Those that can go on with a byte, and how."""
        ways = [(number, self._terminals[number].after(at, byte)) for number, at in terminals]
        if any(after is None for _, after in ways):
            raise UnknownSyntax
        return tuple((number, at) for number, at in ways if at is not None and not self._terminals[number].is_dead(at))


class TextMap:
    """For any text that `tag` ends, or a special token, which the map does not see. A place is what stands of it at the end."""

    start = b""
    marks = b""
    exact = False
    counts = False

    def __init__(self, tag: bytes) -> None:
        self._tag = tag

    def lasting(self, at: bytes) -> bool:
        """All places are."""
        return True

    def distance(self, at: bytes) -> float:
        """All letters may come where no part of the tag stands, nor of a letter."""
        return 0 if at else math.inf

    def behind_bound(self, at: bytes) -> bytes:
        """Nothing is counted."""
        return at

    def letters(self, text: bytes) -> int:
        """How many there are, if the tag does not begin among them."""
        if self._tag and self._tag[:1] in text:
            return 0
        try:
            return len(text.decode())
        except UnicodeDecodeError:
            return 0

    def walk(self, at: bytes, text: bytes) -> bytes | None:
        """Where a text leads; None: to the tag."""
        whole = at + text
        if self._tag and self._tag in whole:
            return None
        begun = next((size for size in range(min(len(self._tag), len(whole)), 0, -1) if whole.endswith(self._tag[:size])), 0)
        return max(self._tag[:begun], _unfinished(whole), key=len)


def _unfinished(text: bytes) -> bytes:
    """The bytes of a character at the end of a text that is not whole."""
    return text[len(text.decode(errors="ignore").encode()) :]
