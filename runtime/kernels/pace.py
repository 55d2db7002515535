"""Whether the caller does a single row's step alone, because a thread of the pool is kept off its core.

Every row of a Program waits for all threads. A thread whose core is shared with another program's is away for milliseconds at
a time, and the caller waits; where memory is the limit, or such a thread is rarely there, it is faster alone. What is faster
is measured.
"""

from __future__ import annotations

from typing import Literal

STALLED = 0.3  # of a step's time waited for threads that are away: then being alone is tried
MEMORY = 0.9  # of the average of such shares, a step
TRIAL = 8  # steps of a trial
HOLD = 192  # steps alone before all threads are tried again
REST = 512  # steps together before being alone is tried again, where it was slower
MOST_THREADS = 4  # with more, one thread alone is never the faster


class Pace:
    """Told of each step, says how the next one is to be done."""

    def __init__(self, threads: int) -> None:
        self._possible = 1 < threads <= MOST_THREADS
        self._state: Literal["watching", "trying together", "trying alone", "staying alone"] = "watching"
        self._steps = 0  # that the state still lasts; while watching, until a trial may begin
        self._share = 0.0  # of the time of steps together that is waited, averaged
        self._together = self._waited = self._by_itself = 0  # ticks of the last trials

    @property
    def alone(self) -> bool:
        return self._state.endswith("alone")

    def took(self, elapsed: int, stalled: int) -> None:
        """A step took so many ticks, and waited so many of them for threads that were away."""
        if not self._possible or elapsed <= 0:
            return
        self._steps -= 1
        if self._state == "watching":
            self._share = MEMORY * self._share + (1 - MEMORY) * stalled / elapsed
            if self._share > STALLED and self._steps <= 0:
                self._try_together()
        elif self._state == "trying together":
            self._together, self._waited = self._together + elapsed, self._waited + stalled
            if self._steps == 0:
                self._judge_together()
        elif self._state == "trying alone":
            self._by_itself += elapsed
            if self._steps == 0:
                self._judge_alone()
        elif self._steps == 0:
            self._try_together()

    def _try_together(self) -> None:
        self._state, self._steps = "trying together", TRIAL
        self._together = self._waited = 0

    def _judge_together(self) -> None:
        if self._waited > STALLED * self._together:
            self._state, self._steps, self._by_itself = "trying alone", TRIAL, 0
        else:
            self._watch(0)

    def _judge_alone(self) -> None:
        if self._by_itself < self._together:
            self._state, self._steps = "staying alone", HOLD
        else:
            self._watch(REST)

    def _watch(self, steps: int) -> None:
        self._state, self._steps, self._share = "watching", steps, 0.0
