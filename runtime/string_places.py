"""Places in strings of JSON without knowing which string of the schema they are: what any of these still has to know."""

from __future__ import annotations

import bisect
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from runtime.derivatives import UnknownSyntax
from runtime.expressions import Expression

_LETTERS = re.compile(rb'[^"\\\x00-\x1f\x7f]*')
_SIGNS = re.compile(r"\\.|\[(?:\\.|[^]\\])*]|[()|]", re.DOTALL)  # of an expression; escapes and classes are one each
_SHORT = 3  # bytes, or characters that count, after which others will hardly be at the same place


class StringAt(NamedTuple):
    """Inside a string."""

    raw: bytes | None = b""  # its letters, if it may have to be one of some; None: it cannot
    letter: bytes = b""  # the next one, which is not whole
    length: int = 0  # characters, as far as they count
    states: tuple[int, ...] = ()  # of the patterns; none if it can match none of them
    told: bool = True  # whether this is all that there is to know


UNTOLD = StringAt(None, told=False)
"""Until the string ends, after which all are the same again."""


class Strings:
    """All strings of a schema. `nodes`: the schemas in it; `names`: keys; `values`: strings that it lists."""

    def __init__(self, nodes: Sequence[Mapping[str, Any]], names: Iterable[str], values: Iterable[str]) -> None:
        self.names = frozenset(_spelled(names))
        self._spelled = sorted(self.names | _spelled(values))
        self._whole, self._patterns = any("format" in node for node in nodes), list[Expression]()
        for pattern in {node["pattern"] for node in nodes if isinstance(node.get("pattern"), str)}:
            self._add(pattern)
        self._bounds = sorted({bound for node in nodes for bound in _bounds(node)})
        self.counts = bool(self._bounds)
        self._countable = self._bounds[-1] if self._bounds else 0  # characters that change something
        states = tuple(pattern.start for pattern in self._patterns)
        self.start = self._settled(StringAt(states=states))

    def _add(self, pattern: str) -> None:
        try:
            if not _is_anchored(pattern):
                raise UnknownSyntax
            self._patterns.append(Expression(pattern[1:-1]))
        except UnknownSyntax:
            self._whole = True

    def lasting(self, at: StringAt) -> bool:
        """Whether others will come here."""
        if not at.told or (at.states and at.length > _SHORT and at.length < self._countable):
            return False
        return at.raw is None or len(at.raw) <= _SHORT or self._is_beginning(at.raw)

    def distance(self, at: StringAt) -> float:
        """Letters up to the next bound; 0 where not all letters may follow, or more is to know."""
        if not at.told or at.raw is not None or at.letter or at.states:
            return 0
        place = bisect.bisect_right(self._bounds, at.length)
        return self._bounds[place] - at.length if place < len(self._bounds) else math.inf

    def behind_bound(self, at: StringAt) -> StringAt:
        """The first place after the same bounds."""
        place = bisect.bisect_right(self._bounds, at.length)
        return at._replace(length=self._bounds[place - 1] if place else 0)

    def after(self, at: StringAt, text: bytes) -> StringAt:
        """After `letters`, where none is unfinished."""
        if not at.told:
            return at
        states = self._after_patterns(at.states, text) if at.states else ()
        if states is None:
            return UNTOLD
        length = min(at.length + _count(text), self._countable) if self._countable else 0
        if at.raw is None:
            return StringAt(None, b"", length, states)
        return self._settled(StringAt(at.raw + text, b"", length, states))

    def _after_patterns(self, states: tuple[int, ...], text: bytes) -> tuple[int, ...] | None:
        """The states of the patterns after a text, none if it can match none of them; None: not known."""
        further, alive = [], False
        for pattern, state in zip(self._patterns, states, strict=True):
            after = pattern.after_all(state, text)
            if after is None:
                return None
            alive = alive or not pattern.is_dead(after)
            further.append(after)
        return tuple(further) if alive else ()

    def ends(self, at: StringAt, byte: int) -> bool:
        """Whether the byte is the quote at the end."""
        return byte == ord('"') and not at.letter

    def further(self, at: StringAt, byte: int) -> StringAt:
        """After one more byte of a character that is escaped, or did not come all at once."""
        if not at.told:  # only of a backslash it matters whether it stands before the quote
            return at._replace(letter=b"\\" if byte == ord("\\") and not at.letter else b"")
        letter = at.letter + bytes([byte])
        if letter == b"\\" or not _is_whole(letter):
            return at._replace(letter=letter)
        escaped = letter[0] == ord("\\")
        if letter == b"\\u" or (escaped and (at.states or at.raw is not None)):
            return UNTOLD
        return self.after(at._replace(letter=b""), letter[escaped:])

    def _settled(self, at: StringAt) -> StringAt:
        """Without its text, if the schema lists none that begins like this."""
        return at if at.raw is None or self._whole or self._is_beginning(at.raw) else at._replace(raw=None)

    def _is_beginning(self, raw: bytes) -> bool:
        """Whether the schema lists a string that begins like this."""
        place = bisect.bisect_left(self._spelled, raw)
        return place < len(self._spelled) and self._spelled[place].startswith(raw)


def _is_anchored(pattern: str) -> bool:
    """Whether it has to match whole strings: alternatives are all in groups."""
    depth = 0
    for sign in _SIGNS.findall(pattern):
        depth += (sign == "(") - (sign == ")")
        if sign == "|" and depth == 0:
            return False
    return pattern.startswith("^") and pattern.endswith("$")


def _bounds(node: Mapping[str, Any]) -> Iterator[int]:
    """Numbers of characters with which a string may end at last, or must not go on."""
    if isinstance(node.get("minLength"), (int, float)):
        yield int(node["minLength"])
    if isinstance(node.get("maxLength"), (int, float)):
        yield int(node["maxLength"]) + 1


def letters(text: bytes, start: int) -> int:
    """Where letters end that begin at `start`: nothing that ends a string, or that has to be escaped, or is not whole."""
    found = _LETTERS.match(text, start)
    assert found is not None
    return found.end() if _is_whole(found[0]) else start


def _count(text: bytes) -> int:
    return len(text) if text.isascii() else len(text.decode())


def _is_whole(letter: bytes) -> bool:
    if letter.isascii():
        return True
    try:
        letter.decode()
    except UnicodeDecodeError:
        return False
    return True


def _spelled(texts: Iterable[str]) -> set[bytes]:
    """As they are written between quotes."""
    return {json.dumps(text, ensure_ascii=ascii)[1:-1].encode(errors="replace") for text in texts for ascii in (False, True)}
