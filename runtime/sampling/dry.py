"""DRY: a token is the less likely the longer the repetition that it would prolong."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from runtime.core import FloatArray
from runtime.frames import Sampling
from runtime.sampling.candidates import BoolArray, IdArray
from runtime.tokenizer import Tokenizer

_LONGEST_BREAKER = 40  # bytes, as in llama.cpp
_LONGEST_TAIL = 20  # tokens
_KEPT = 64  # breakers whose tokens are remembered
_LARGEST_LOG = np.float32(88.7228391)  # of a float32
_FLAT = 1.000001  # bases up to this one do not grow

Tails = Mapping[int, frozenset[tuple[int, ...]]]
"""A token in which a breaker begins -> the tokens that complete it, as often as there are ways."""


@dataclasses.dataclass(frozen=True, slots=True)
class Breaks:
    """Where repetitions end, in tokens."""

    whole: BoolArray  # (vocabulary,): the token holds a breaker
    tails: Tails


class Breakers:
    """Finds the tokens of sequence breakers in one vocabulary. Any thread may use it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._texts: list[bytes] = []
        self._found: OrderedDict[bytes, Breaks] = OrderedDict()

    def breaks(self, texts: Sequence[str]) -> Breaks:
        """Of several breakers together."""
        with self._lock:
            found = [self._one(text.encode(errors="ignore")[:_LONGEST_BREAKER]) for text in texts if text]
        whole = np.zeros(self._tokenizer.n_vocab, np.bool_)
        tails: dict[int, frozenset[tuple[int, ...]]] = {}
        for breaks in found:
            whole |= breaks.whole
            for token, ends in breaks.tails.items():
                tails[token] = tails.get(token, frozenset()) | ends
        return Breaks(whole, tails)

    def _one(self, breaker: bytes) -> Breaks:
        known = self._found.pop(breaker, None) or self._search(breaker)
        self._found[breaker] = known
        if len(self._found) > _KEPT:
            self._found.popitem(last=False)
        return known

    def _search(self, breaker: bytes) -> Breaks:
        self._texts = self._texts or [self._tokenizer.token_bytes(token) for token in range(self._tokenizer.n_vocab)]
        whole = np.fromiter((breaker in text for text in self._texts), np.bool_, len(self._texts))
        tails: dict[int, frozenset[tuple[int, ...]]] = {}
        for length in range(1, len(breaker)):
            head, rest = breaker[:length], breaker[length:].decode(errors="ignore")
            tail = tuple(self._tokenizer.encode(rest, parse_special=False, add_special=False)[:_LONGEST_TAIL])
            for token in (token for token, text in enumerate(self._texts) if text.endswith(head) and not whole[token]):
                tails[token] = tails.get(token, frozenset()) | {tail}
        return Breaks(whole, tails)


class Dry:
    """The repetitions of one answer. `accept` it every token of the prompt and of the answer."""

    def __init__(self, options: Sampling, breaks: Breaks) -> None:
        self._breaks = breaks
        self._multiplier = options.dry_multiplier
        self._base = options.dry_base
        self._allowed = options.dry_allowed_length
        self._recent: deque[int] = deque(maxlen=options.dry_penalty_last_n)
        # a longer repetition is not punished more, for the penalty has reached the largest number
        self._longest_power = int(_LARGEST_LOG / np.log(np.float32(self._base))) if self._base > _FLAT else 0

    def accept(self, tokens: Sequence[int]) -> None:
        """Take notice of tokens that now precede the next one."""
        self._recent.extend(tokens)

    def penalise(self, logits: FloatArray) -> None:
        """Lower, in place, the logits of tokens that prolong a repetition."""
        ids, lengths = self.repeated()
        if not len(ids):
            return
        powers = np.minimum(lengths - self._allowed, self._longest_power) if self._longest_power else lengths - self._allowed
        with np.errstate(over="ignore"):
            logits[ids] -= (self._multiplier * np.power(self._base, powers.astype(np.float64))).astype(np.float32)

    def repeated(self) -> tuple[IdArray, IdArray]:
        """Tokens to be punished, and the length of the longest repetition that each would prolong."""
        recent = np.fromiter(self._recent, np.int64, len(self._recent))
        none = np.empty(0, np.int64)
        if len(recent) <= self._allowed:
            return none, none
        limit = self._since_break(recent)
        if limit < self._allowed:
            return none, none
        lengths = self._lengths(recent, limit)
        places = np.flatnonzero(lengths >= self._allowed)
        places = places[~self._breaks.whole[recent[places + 1]]]
        places = places[np.argsort(lengths[places], kind="stable")]
        longest = dict(zip(recent[places + 1].tolist(), lengths[places].tolist(), strict=True))  # the last one counts
        return np.array([*longest], np.int64), np.array([*longest.values()], np.int64)

    def _lengths(self, recent: npt.NDArray[np.int64], limit: int) -> IdArray:
        """For each token but the last: how many tokens that end there also end the text; (tokens - 1,).

        One comparison for each length. Few places survive many of them, and beyond the largest penalty none is made.
        """
        lengths = np.zeros(len(recent) - 1, np.int64)
        alive = np.arange(len(recent) - 1)
        enough = self._allowed + self._longest_power
        for length in range(min(limit, max(enough, 0), len(recent) - 1)):
            alive = alive[alive >= length]
            alive = alive[recent[alive - length] == recent[-1 - length]]
            if not len(alive):
                break
            lengths[alive] = length + 1
        return lengths

    def _since_break(self, recent: npt.NDArray[np.int64]) -> int:
        """Tokens after the last breaker."""
        heads = self._breaks.whole[recent]
        for place in range(len(recent) - 1, -1, -1) if self._breaks.tails else ():
            reach = self._reach(recent, place)
            if reach >= 0:
                return len(recent) - 1 - place - reach
        if self._breaks.tails or not heads.any():
            return len(recent)
        return int(heads[::-1].argmax())

    def _reach(self, recent: npt.NDArray[np.int64], place: int) -> int:
        """Further tokens of the longest breaker that begins in the token at `place`; -1: none does."""
        after = tuple(recent[place + 1 : place + 1 + _LONGEST_TAIL].tolist())
        tails = self._breaks.tails.get(int(recent[place]), frozenset())
        reach = max((len(tail) for tail in tails if after[: len(tail)] == tail), default=-1)
        return max(reach, 0 if self._breaks.whole[recent[place]] else -1)
