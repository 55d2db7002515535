"""One answer's way through a grammar. llguidance says what may come next, where that is not known from earlier."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

import llguidance

from runtime.places import At, Place, Places
from runtime.sampling import masks
from runtime.sampling.masks import Mask

NO_TEXT = b"\xff"  # what tokens begin with that are no text


class GrammarError(Exception):
    """The grammar is none, or became too complex to follow."""


class Following:
    """Keeps one answer to its grammar. Let it `take` the token that the model would say; if it does not, ask for the `mask` and
    have it `accept` a token that this permits.

    The matcher may lag behind by tokens of which all was known: it is asked only at places that are new, or on no map.
    """

    def __init__(
        self, matcher: llguidance.LLMatcher, tokens: Sequence[bytes], ends: Container[int], places: Places | None
    ) -> None:
        self._matcher = matcher
        self._tokens = tokens
        self._ends = ends
        self._places = places  # None: off the map
        self._place = places.root if places else None
        self._room = math.inf  # for letters of loose tokens
        self.complete = False  # nothing can follow but the end
        self.has_choice = False  # nothing is `forced`; if not, something may be
        self._behind: list[int] = []  # tokens that the matcher has not heard of; none away from places
        self._last: At = None  # where the map was last asked, away from places and at one that is far
        self._since = bytearray()  # the text from there on
        self._buffer = masks.empty(len(tokens))

    def take(self, token: int) -> bool:
        """Go on with a token if it may come: less work than a mask, which knows it of all tokens. Raises GrammarError."""
        place = self._place
        if place is None:
            return self._ask(token)
        letters = place.loose.get(token)
        if letters is not None and letters <= self._room:
            self._behind.append(token)
            if place.far:
                self._room -= letters
                self._since += self._tokens[token]
            return True
        if token not in place.after:
            return self._explore(place, token)
        there = place.after[token]
        if there is None:
            return False
        self._settle(there, self._onward(place, token) if there.far else there.at)
        self._behind.append(token)
        return True

    def _settle(self, there: Place, at: At) -> None:
        """Be at a place. `at`: what it is for this answer alone, if it is far."""
        self._place, self._room = there, math.inf
        self.complete, self.has_choice = there.stopped, there.choice
        if there.far:
            assert self._places is not None
            self._last, self._room = at, self._places.room(at)
            self._since.clear()

    def _explore(self, place: Place, token: int) -> bool:
        """`take` where nobody has gone on with the token."""
        permitted = None if token in self._ends else self._knows(place, token)
        if permitted is False:  # by the mask
            place.after[token] = None
            return False
        return (permitted is True and self._find(place, token)) or self._ask(token)

    def _knows(self, place: Place, token: int) -> bool | None:
        """Whether the token may come; None: not known."""
        if self._places is not None and self._places.fits(place.at, token):
            return True
        if place.mask is not None and place.choice:  # a text that is forced may come in other tokens than the mask has
            return masks.permits(place.mask, token)
        return True if self._places is not None and self._places.map.exact else None

    def _find(self, place: Place, token: int) -> bool:
        """Go on with a token that may come, if it is known where it leads."""
        at, places = self._onward(place, token), self._places
        if at is None or places is None:
            return False
        there = places.known(at, token)
        if there is None and places.has_choice(at):
            there = places.add(at, token, (), choice=True, stopped=False)
        if there is not None:
            self._remember(place, token, there, at)
            self._settle(there, at)
            self._behind.append(token)
        return there is not None

    def _onward(self, place: Place, token: int) -> At | None:
        """Where a token leads, by the map."""
        if place.far:
            return self._walk(self._last, bytes(self._since) + self._tokens[token])
        return self._walk(place.at, self._tokens[token])

    def _remember(self, place: Place, token: int, there: Place, at: At) -> None:
        """Where a token led; from a place that is far only if it leads there after any number of letters."""
        if place.far:
            assert self._places is not None
            elsewhere = self._room < self._places.room(place.at)
            if not elsewhere or self._walk(place.at, self._tokens[token]) != at:
                return
        place.after[token] = there

    def _ask(self, token: int) -> bool:
        """`take` by the matcher."""
        place = self._place
        self._catch_up()
        if token in self._ends:
            if self._matcher.is_accepting():
                return True
        elif self._matcher.try_consume_tokens([token]):
            self._arrive(token)
            if self._place is None:
                self.complete, self.has_choice = self._matcher.is_stopped(), False
            return True
        if place is not None and not self._matcher.is_error():
            place.after[token] = None
        return False

    def accept(self, token: int) -> None:
        """Go on with a token that may come; one that ends the answer changes nothing. Raises GrammarError."""
        if token not in self._ends and not self.take(token):
            self._matcher.consume_token(token)  # says why it does not
            raise GrammarError(error(self._matcher))

    def take_all(self, tokens: list[int]) -> None:
        """Go on with all of these tokens, or with none. Raises GrammarError."""
        self._catch_up()
        if self._matcher.validate_tokens(tokens) == len(tokens):
            for token in tokens:
                self.accept(token)

    def mask(self) -> Mask:
        """Which tokens may come. Valid until the next call, and not to be changed. Raises GrammarError."""
        place = self._place
        if place is not None and place.mask is not None:
            return place.mask
        self._catch_up()
        mask = self._buffer if place is None else masks.empty(len(self._tokens))
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self._matcher.is_error():
            raise GrammarError(error(self._matcher))
        if place is not None:
            place.mask = mask
        return mask

    def forced(self) -> Sequence[int]:
        """The tokens that have to follow; none where there is a choice. Raises GrammarError."""
        place = self._place
        if place is None:
            return self._matcher.compute_ff_tokens()
        if place.forced is None:
            self._catch_up()
            place.forced = self._matcher.compute_ff_tokens()
        return place.forced

    def _catch_up(self) -> None:
        """Let the matcher hear of all tokens."""
        if self._behind:
            tokens, self._behind = self._behind, []
            if not self._matcher.consume_tokens(tokens):
                raise GrammarError(error(self._matcher))

    def _arrive(self, token: int) -> None:
        """Find the place to which the matcher has gone with a token."""
        places, before = self._places, self._place
        if places is None:
            return
        if before is not None and not before.far:
            self._last = before.at
            self._since.clear()
        self._since += self._tokens[token]
        self._place = None
        if before is None and token not in places.marked:
            return
        at = self._last = self._walk(self._last, bytes(self._since))
        self._since.clear()
        if at is None:
            self._places = None
        elif places.map.lasting(at):
            there = places.known(at, token) or self._new(places, at, token)
            if before is not None:
                self._remember(before, token, there, at)
            self._settle(there, at)

    def _new(self, places: Places, at: At, token: int) -> Place:
        """The place where the matcher is, and nobody has been."""
        if places.has_choice(at):
            return places.add(at, token, (), choice=True, stopped=False)
        if self._matcher.is_stopped():
            return places.add(at, token, (), choice=False, stopped=True)
        forced = self._matcher.compute_ff_tokens()
        choice = not forced and not self._matcher.compute_ff_bytes()
        return places.add(at, token, forced, choice=choice, stopped=False)

    def _walk(self, at: At, text: bytes) -> At | None:
        return None if NO_TEXT in text or self._places is None else self._places.map.walk(at, text)


def error(matcher: llguidance.LLMatcher) -> str:
    """Why it came to nothing. The first line: what follows is the state of the parser."""
    return matcher.get_error().partition("\n")[0]
