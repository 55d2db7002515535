"""Penalties for tokens that came before: repeat_penalty, presence_penalty, frequency_penalty."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from runtime.core import FloatArray
from runtime.frames import Sampling
from runtime.sampling.candidates import IdArray


def penalise(logits: FloatArray, window: Window, options: Sampling) -> None:
    """Lower, in place, the logits of the tokens in the window."""
    ids, counts = window.counted()
    old, repeat = logits[ids], np.float32(options.repeat_penalty)
    penalty = counts * np.float32(options.frequency_penalty) + np.float32(options.presence_penalty)
    logits[ids] = np.where(old <= 0, old * repeat, old / repeat) - penalty


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
