"""Which states of recurrent layers are kept so that a later request may go on from them.

A state is of a whole text so far, so it can be gone on with only where it was copied: at the end of some blocks. It is known by
the digest of its last block, which is one of all tokens before it too (runtime/kv_cache.py). Only numbers live here; the states
belong to the executor.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class Checkpoints:
    """Hands out the places `first` .. `first + count - 1`; of those that are taken, the least recently used goes first."""

    def __init__(self, first: int, count: int) -> None:
        assert count > 0
        self._blank = list(range(first + count - 1, first - 1, -1))
        self._places: OrderedDict[bytes, int] = OrderedDict()  # by digest, least recently used first

    def longest(self, keys: Sequence[bytes]) -> tuple[int, int | None]:
        """How many of a text's leading blocks lie before its last known state, and where that is; (0, None): none is known."""
        for count in range(len(keys), 0, -1):
            place = self._places.get(keys[count - 1])
            if place is not None:
                self._places.move_to_end(keys[count - 1])
                return count, place
        return 0, None

    def put(self, key: bytes, instead_of: bytes | None = None) -> int | None:
        """A place for the state after a block, that of another one where it is still there; None: it is known already."""
        if key in self._places:
            self._places.move_to_end(key)
            return None
        place = self._places.pop(instead_of, None) if instead_of is not None else None
        if place is None:
            place = self._blank.pop() if self._blank else self._places.popitem(last=False)[1]
        self._places[key] = place
        return place
