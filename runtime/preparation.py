"""Requests that take long to get ready: a grammar that nobody has asked for before may take seconds to compile, or ages.

They wait on threads of their own, so that the reader goes on with others, and for no longer than `LONGEST_SECONDS`. A compilation
that has begun here is not stopped (those that may never end are tried elsewhere, and look at `is_given_up`: `grammar_trial`);
those behind it find the other thread, or fail in their turn.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Generic, TypeVar

from runtime.frames import Failed, Frame, Generate

_LOG = logging.getLogger(__name__)

LONGEST_SECONDS = 20.0
_THREADS = 2

J = TypeVar("J")
F = TypeVar("F", bound=Frame)


_GIVEN_UP: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)  # of the request that a thread works on


def is_given_up() -> bool:
    """Whether the request that this thread gets ready has been cancelled, or has failed for taking too long."""
    event = _GIVEN_UP.get()
    return event is not None and event.is_set()


@dataclasses.dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that is not ready: what ends it when it takes too long, and what tells whoever works on it that it has ended."""

    timer: threading.Timer
    given_up: threading.Event = dataclasses.field(default_factory=threading.Event)

    def end(self) -> None:
        self.timer.cancel()
        self.given_up.set()


class Preparation(Generic[J]):
    """`prepare` makes a job of a request, or says why not; `done` hears of it, on another thread, unless it was cancelled."""

    def __init__(
        self,
        prepare: Callable[[Generate], J | Failed],
        done: Callable[[J | Failed], None],
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        self._prepare = prepare
        self._done = done
        self._longest = longest_seconds
        self._pool = ThreadPoolExecutor(_THREADS, "preparation")
        self._lock = threading.Lock()
        self._waiting: dict[int, _Waiting] = {}

    def begin(self, request: Generate) -> None:
        """Get a request ready."""
        late = Failed(request.id, "bad_request", f"the grammar takes longer than {self._longest:.0f} s to compile")
        timer = threading.Timer(self._longest, self._finish, (request.id, late))
        timer.daemon = True
        with self._lock:
            self._waiting[request.id] = _Waiting(timer)
        timer.start()
        self._pool.submit(self._run, request)

    def cancel(self, number: int) -> None:
        """Forget a request, if it is here."""
        with self._lock:
            waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting.end()

    def _run(self, request: Generate) -> None:
        with self._lock:
            waiting = self._waiting.get(request.id)
        if waiting is None:
            return
        _GIVEN_UP.set(waiting.given_up)
        self._finish(request.id, guarded(self._prepare, request))

    def _finish(self, number: int, found: J | Failed) -> None:
        with self._lock:  # until it is told: a cancellation comes before, or finds the job where it went
            waiting = self._waiting.pop(number, None)
            if waiting is not None:
                waiting.end()
                self._done(found)


def guarded(answer: Callable[[F], J], request: F) -> J | Failed:
    """The answer, or that there is none."""
    try:
        return answer(request)
    except Exception as error:  # a request may break nothing but itself
        _LOG.exception("a %s request failed", type(request).__name__)
        return Failed(getattr(request, "id", None), "internal", f"the request failed: {error!r}")
