"""Places in a grammar: answers at the same one can go on in the same ways. What llguidance has said there once holds for all.

llguidance does not tell its states. What tells places apart is the text before them, by a `Map`, which drops what no longer
matters: of the strings of a list, say, that they have been written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Sequence
from typing import Any, Protocol

from runtime.sampling.masks import Mask

_ROOM = 16 << 20  # bytes that the places of a grammar may take
_SMALL = 1500  # bytes of a place beside its mask

At = Any
"""What a map calls a place: something that can be hashed."""


class Map(Protocol):
    """Tells places apart. It sees only text that the grammar permits."""

    exact: bool  # where it leads to a known place, the grammar permits the text

    @property
    def start(self) -> At:
        """Before any text."""

    @property
    def marks(self) -> bytes:
        """After a place that is not worth remembering, there can be one that is only where one of these bytes has come."""

    def walk(self, at: At, text: bytes) -> At | None:
        """Where a text leads; None: off the map, for the rest of the answer."""

    def lasting(self, at: At) -> bool:
        """Whether other answers, or this one, will probably come here again."""

    def loose(self, at: At) -> bool:
        """Whether any text that `is_loose` may come here, and any other after it, and nothing is ever forced."""

    def is_loose(self, text: bytes) -> bool:
        """Whether the text is such one. If the place is lasting, it leads to the same place."""


@dataclasses.dataclass(eq=False, slots=True)
class Place:
    """What is known of a place."""

    at: At
    forced: Sequence[int] | None = None  # the tokens that have to follow; none where there is a choice; None: not known
    choice: bool = False  # more than one byte can follow: the same tokens may come whatever the last one was
    stopped: bool = False  # nothing can follow but the end
    loose: Container[int] = ()  # tokens that lead back here
    mask: Mask | None = None
    after: dict[int, Place | None] = dataclasses.field(default_factory=dict)  # where tokens lead; None: they may not come


class Places:
    """Those of a grammar that answers have come to."""

    def __init__(self, chart: Map, tokens: Sequence[bytes], mask_bytes: int) -> None:
        """`tokens`: their texts; `mask_bytes`: of a mask."""
        self.map = chart
        marks = set(chart.marks)
        self.marked = frozenset(token for token, text in enumerate(tokens) if not marks.isdisjoint(text))
        self._loose = frozenset(token for token, text in enumerate(tokens) if chart.is_loose(text))
        self._most = max(64, _ROOM // (mask_bytes + _SMALL))
        self._known: dict[At, Place] = {}
        self.root = self._root()

    def loose(self, at: At) -> Container[int]:
        """Tokens that may come in any number from a place on."""
        return self._loose if self.map.loose(at) else ()

    def known(self, at: At, token: int) -> Place | None:
        """The place to which a token has led, if others have been there. The tokens of a forced text depend on that token too."""
        return self._known.get(at) or self._known.get((at, token))

    def add(self, at: At, token: int, forced: Sequence[int], *, choice: bool, stopped: bool) -> Place:
        """A new place, to which a token has led."""
        if len(self._known) >= self._most:  # answers that are under way keep theirs until they end
            self._known, self.root = {}, self._root()
        place = self._known[at if choice else (at, token)] = Place(at, forced, choice, stopped, self.loose(at))
        return place

    def _root(self) -> Place:
        return Place(self.map.start, loose=self.loose(self.map.start))
