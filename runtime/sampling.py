"""From logits to the next token, in llama.cpp's order: penalties, top_k, typical_p, top_p, min_p, temperature, draw.

The stages work on candidates: two arrays of the same length, token ids and float32 logits. Only ties and the random numbers
themselves differ from llama.cpp: of equal logits the lowest id comes first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.core import FloatArray
from runtime.frames import Sampling

IdArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Candidates = tuple[IdArray, FloatArray]

_RANDOM_SEED = 0xFFFFFFFF  # what -1 is among the 32 bits of a seed
_LARGEST_GROUP = 64  # logits whose maximum is taken together
_NUCLEUS = (256, 4096)  # candidates that top_p sorts before it sorts all
_COLDEST = 1e-5  # temperatures below cannot be told from it, but would overflow
_LEAST = -3.4028234663852886e38  # instead of minus infinity, which JSON does not have


class SamplingError(Exception):
    """The request asks for a sampling that does not exist."""


class NotANumber(Exception):
    """The model computed logits that are no numbers."""


class Sampler:
    """Chooses the tokens of one answer. `accept` it every token of the prompt and of the answer."""

    def __init__(self, options: Sampling, num_ctx: int) -> None:
        _check(options)
        self._options = options
        penalised = options.repeat_penalty != 1.0 or options.presence_penalty != 0.0 or options.frequency_penalty != 0.0
        length = num_ctx if options.repeat_last_n < 0 else options.repeat_last_n
        self._window = Window(length) if penalised and length else None
        self._greedy = options.temperature <= 0 and options.typical_p >= 1.0  # only typical_p can drop the best token
        seed = options.seed & 0xFFFFFFFF
        self._random = None if self._greedy else np.random.Generator(np.random.PCG64(None if seed == _RANDOM_SEED else seed))

    def accept(self, tokens: Sequence[int]) -> None:
        """Take notice of tokens that now precede the next one."""
        if self._window is not None:
            self._window.extend(tokens)

    def sample(self, logits: FloatArray, allowed: BoolArray | None = None) -> int:
        """The next token. `logits`: (vocabulary,), left as they are. `allowed`: the tokens to choose from. Raises NotANumber."""
        if self._window is not None:
            logits = self._penalised(logits, self._window)
        if allowed is None:
            return self._choose(logits)
        best = int(logits.argmax())
        if self._greedy and best < len(allowed) and allowed[best]:
            return self._choose(logits)
        ids = np.flatnonzero(allowed)
        return int(ids[self._choose(logits[ids])])

    def _choose(self, logits: FloatArray) -> int:
        best = int(logits.argmax())  # or the place of a NaN
        if not math.isfinite(logits[best]):
            raise NotANumber
        return best if self._random is None else self._draw(self._filter(logits), self._random)

    def _penalised(self, logits: FloatArray, window: Window) -> FloatArray:
        options = self._options
        ids, counts = window.counted()
        logits, old, repeat = logits.copy(), logits[ids], np.float32(options.repeat_penalty)
        penalty = counts * np.float32(options.frequency_penalty) + np.float32(options.presence_penalty)
        logits[ids] = np.where(old <= 0, old * repeat, old / repeat) - penalty
        return logits

    def _filter(self, logits: FloatArray) -> Candidates:
        options = self._options
        falling = 0 < options.top_k < len(logits)
        candidates = highest(logits, options.top_k) if falling else (np.arange(len(logits)), logits)
        if options.typical_p < 1.0:
            candidates = _typical(candidates, options.typical_p)
            falling = False
        if options.top_p < 1.0:
            candidates = _nucleus(candidates, options.top_p, falling)
        if options.min_p > 0.0:
            candidates = _at_least(candidates, options.min_p)
        return candidates

    def _draw(self, candidates: Candidates, random: np.random.Generator) -> int:
        ids, logits = candidates
        temperature = self._options.temperature
        if temperature <= 0:
            return int(ids[logits.argmax()])
        weights = np.exp((logits - logits.max()) / np.float32(max(temperature, _COLDEST)))
        sums = np.cumsum(weights, dtype=np.float64)
        return int(ids[sums.searchsorted(random.random() * sums[-1])])


class Window:
    """How often each of the last `length` tokens occurs. All operations take constant time per token."""

    def __init__(self, length: int) -> None:
        self._recent: deque[int] = deque()
        self._length = length
        self._place: dict[int, int] = {}  # token -> its place in the two arrays
        self._ids = np.zeros(64, np.int64)
        self._counts = np.zeros(64, np.float32)

    def extend(self, tokens: Sequence[int]) -> None:
        """Let tokens in, and as many out as are too many."""
        for token in tokens[-self._length :]:
            self._recent.append(token)
            self._enter(token)
            if len(self._recent) > self._length:
                self._leave(self._recent.popleft())

    def counted(self) -> tuple[IdArray, FloatArray]:
        """The different tokens and how often they occur; views."""
        return self._ids[: len(self._place)], self._counts[: len(self._place)]

    def _enter(self, token: int) -> None:
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._ids):
            self._ids = np.concatenate((self._ids, np.zeros_like(self._ids)))
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
        self._ids[place] = token
        self._counts[place] += 1

    def _leave(self, token: int) -> None:
        place = self._place[token]
        self._counts[place] -= 1
        if self._counts[place]:
            return
        del self._place[token]
        last = len(self._place)
        if place != last:  # the last one moves into the gap
            self._ids[place], self._counts[place] = self._ids[last], self._counts[last]
            self._place[int(self._ids[place])] = place
        self._counts[last] = 0


def log_probabilities(logits: FloatArray, token: int, k: int) -> tuple[float, list[tuple[int, float]]]:
    """Of `token`, and the `k` likeliest tokens with theirs, by the model alone: before penalties and all else."""
    top = logits.max()
    total = float(top) + math.log(float(np.exp(logits - top).sum(dtype=np.float64)))
    ids, best = highest(logits, k)
    alternatives = [(int(i), max(float(x) - total, _LEAST)) for i, x in zip(ids, best, strict=True)]
    return max(float(logits[token]) - total, _LEAST), alternatives


def highest(logits: FloatArray, k: int) -> Candidates:
    """The `k` highest logits, falling, with their places."""
    if k <= 0:
        return np.empty(0, np.int64), logits[:0]
    ids = np.flatnonzero(logits >= _bound(logits, k)) if k < len(logits) else np.arange(len(logits))
    chosen = logits[ids]
    order = np.argsort(-chosen, kind="stable")[:k]
    return ids[order], chosen[order]


def _bound(logits: FloatArray, k: int) -> np.float32:
    """A value that at least `k` logits reach, and few more; k < the number of logits.

    Of disjoint groups, k have a maximum that is at least the k-th highest maximum, so at least k logits are.
    """
    group = 1
    while group < _LARGEST_GROUP and len(logits) >= 16 * k * group:
        group *= 2
    length = len(logits) // group
    maxima = logits[: length * group].reshape(group, length).max(axis=0) if group > 1 else logits
    bound: np.float32 = np.partition(maxima, length - k)[length - k]
    return bound


def _typical(candidates: Candidates, p: float) -> Candidates:
    """Those whose surprise is closest to the expected one, until their probabilities exceed `p`."""
    order, logits = highest(candidates[1], len(candidates[1]))
    weights = np.exp(logits - logits[0])
    probabilities = weights / weights.sum()
    possible = probabilities > 0
    probabilities, order = probabilities[possible], order[possible]
    surprise = -np.log(probabilities)
    closest = np.argsort(np.abs(surprise - (probabilities * surprise).sum()), kind="stable")
    count = int(np.cumsum(probabilities[closest]).searchsorted(p, side="right")) + 1
    kept = order[closest[:count]]
    return candidates[0][kept], candidates[1][kept]


def _nucleus(candidates: Candidates, p: float, falling: bool) -> Candidates:
    """The likeliest ones, until their probabilities reach `p`. `falling`: they stand in that order already."""
    ids, logits = candidates
    if falling:
        sums = np.cumsum(np.exp(logits - logits[0]), dtype=np.float64)
        target = p * sums[-1]
    else:
        top = logits.max()
        target = p * np.exp(logits - top).sum(dtype=np.float64)
        for length in (*_NUCLEUS, len(ids)):  # nearly always the first will do
            order, head = highest(logits, min(length, len(ids)))
            sums = np.cumsum(np.exp(head - top), dtype=np.float64)
            if sums[-1] >= target:
                break
        ids, logits = ids[order], head
    count = int(sums.searchsorted(target)) + 1
    return ids[:count], logits[:count]


def _at_least(candidates: Candidates, p: float) -> Candidates:
    """Those at least `p` times as likely as the likeliest."""
    ids, logits = candidates
    top = logits.max()
    kept = logits >= top + np.float32(math.log(p))
    if not kept.any():
        kept = logits == top
    return ids[kept], logits[kept]


def _check(options: Sampling) -> None:
    repeat = options.repeat_penalty
    if not math.isfinite(repeat) or repeat <= 0 or repeat < 1e-38:
        raise SamplingError("penalty_repeat must be finite and greater than 0")
    if not math.isfinite(options.frequency_penalty):
        raise SamplingError("penalty_freq must be finite")
    if not math.isfinite(options.presence_penalty):
        raise SamplingError("penalty_present must be finite")
