"""Places in a grammar: answers at the same one can go on in the same ways. What llguidance has said there once holds for all.

llguidance does not tell its states. What tells places apart is the text before them, by a `Map`, which drops what no longer
matters: of the strings of a list, say, that they have been written.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from runtime.sampling.masks import Mask

_ROOM = 16 << 20  # bytes that the places of a grammar may take
_SMALL = 1500  # bytes of a place beside its mask

At = Any
"""What a map calls a place: something that can be hashed."""


class Map(Protocol):
    """Tells places apart. It sees only text that the grammar permits."""

    exact: bool  # where it leads to a known place, the grammar permits the text
    counts: bool  # whether a number of letters matters anywhere

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

    def letters(self, text: bytes) -> int:
        """How many there are, if it is `loose`: only letters, which are all alike; else 0."""

    def distance(self, at: At) -> float:
        """Letters up to the next place where their number matters; before it any texts that are loose may come, and nothing is
        forced. Infinite: the place stays the same. 0: not all letters may come."""

    def behind_bound(self, at: At) -> At:
        """The first place from which the next one where the number of letters matters is the same as from here."""


@dataclasses.dataclass(eq=False, slots=True)
class Place:
    """What is known of a place."""

    at: At
    forced: Sequence[int] | None = None  # the tokens that have to follow; none where there is a choice; None: not known
    choice: bool = False  # more than one byte can follow: the same tokens may come whatever the last one was
    stopped: bool = False  # nothing can follow but the end
    loose: Mapping[int, int] = dataclasses.field(default_factory=dict)  # tokens that lead back here, with their letters
    far: bool = False  # from a number of letters that matters: it stands for all places between two such numbers
    mask: Mask | None = None
    after: dict[int, Place | None] = dataclasses.field(default_factory=dict)  # where tokens lead; None: they may not come


class Places:
    """Those of a grammar that answers have come to."""

    def __init__(self, chart: Map, tokens: Sequence[bytes], mask_bytes: int) -> None:
        """`tokens`: their texts; `mask_bytes`: of a mask."""
        self.map = chart
        marks = set(chart.marks)
        self.marked = frozenset(token for token, text in enumerate(tokens) if not marks.isdisjoint(text))
        self._loose = {token: letters for token, text in enumerate(tokens) if (letters := chart.letters(text))}
        self._longest = max(map(len, tokens))
        self._most = max(64, _ROOM // (mask_bytes + _SMALL))
        self._known: dict[At, Place | dict[int, Place]] = {}  # or by the token that has led there, where a text is forced
        self._count = 0  # of places
        self.root = self._place(chart.start)

    def room(self, at: At) -> float:
        """Letters that may come in loose tokens before other tokens may come than here; less than 0: none."""
        return self.map.distance(at) - self._longest - 1

    def fits(self, at: At, token: int) -> bool:
        """Whether the token surely may come, because it consists of letters that may."""
        return self.map.counts and self._loose.get(token, math.inf) < self.map.distance(at)

    def has_choice(self, at: At) -> bool:
        """Whether several letters may surely come."""
        return self.map.distance(at) > 1

    def known(self, at: At, token: int) -> Place | None:
        """The place to which a token has led, if others have been there. The tokens of a forced text depend on that token too."""
        found = self._known.get(self._shared(at))
        return found.get(token) if isinstance(found, dict) else found

    def add(self, at: At, token: int, forced: Sequence[int], *, choice: bool, stopped: bool) -> Place:
        """A new place, to which a token has led."""
        if self._count >= self._most:  # answers that are under way keep theirs until they end
            self._known, self._count, self.root = {}, 0, self._place(self.map.start)
        self._count += 1
        place = self._place(at)
        place.forced, place.choice, place.stopped = forced, choice, stopped
        if choice:
            self._known[place.at] = place
        else:
            found = self._known.get(place.at)
            by_token = self._known[place.at] = found if isinstance(found, dict) else {}
            by_token[token] = place
        return place

    def _place(self, at: At) -> Place:
        room = self.room(at)
        return Place(self._shared(at), loose=self._loose if room >= 0 else {}, far=0 <= room < math.inf)

    def _shared(self, at: At) -> At:
        return self.map.behind_bound(at) if self.map.counts and self.room(at) >= 0 else at
