"""runtime.preparation: requests that take long to get ready."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from runtime.frames import Failed, Generate
from runtime.preparation import Preparation, is_given_up

SECONDS = 20  # after which a test fails

Told = queue.SimpleQueue[str | Failed]


class Gate:
    """Requests get ready as soon as it is open."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Semaphore(0)

    def prepare(self, request: Generate) -> str:
        self.entered.release()
        assert self.opened.wait(SECONDS)
        return f"job {request.id}"

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self.entered.acquire(timeout=SECONDS)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def told() -> Told:
    return queue.SimpleQueue()


def failure(told: Told) -> Failed:
    found = told.get(timeout=SECONDS)
    assert isinstance(found, Failed)
    return found


def test_each_is_told_once(gate: Gate, told: Told) -> None:
    preparation = Preparation(gate.prepare, told.put)
    for number in range(4):
        preparation.begin(Generate(number, ""))
    gate.opened.set()
    assert sorted(str(told.get(timeout=SECONDS)) for _ in range(4)) == ["job 0", "job 1", "job 2", "job 3"]
    assert told.empty()


def test_what_takes_too_long_fails_and_those_behind_it(gate: Gate, told: Told) -> None:
    preparation = Preparation(gate.prepare, told.put, longest_seconds=0.05)
    for number in range(3):
        preparation.begin(Generate(number, ""))
    failures = [failure(told) for _ in range(3)]
    assert sorted(failed.id or 0 for failed in failures) == [0, 1, 2]
    assert {failed.kind for failed in failures} == {"bad_request"}
    gate.opened.set()
    preparation.begin(Generate(3, ""))
    assert told.get(timeout=SECONDS) == "job 3"  # and nothing of those that came too late


def test_a_cancelled_one_is_never_told(gate: Gate, told: Told) -> None:
    preparation = Preparation(gate.prepare, told.put)
    for number in range(3):
        preparation.begin(Generate(number, ""))
    gate.wait(2)
    preparation.cancel(0)  # one that has begun
    preparation.cancel(2)  # one that waits
    preparation.cancel(7)  # one that is not there
    gate.opened.set()
    assert told.get(timeout=SECONDS) == "job 1"
    preparation.begin(Generate(4, ""))
    assert told.get(timeout=SECONDS) == "job 4"


@pytest.mark.parametrize("cancelled", [True, False])
def test_whoever_works_on_a_request_hears_of_its_end(cancelled: bool, told: Told) -> None:
    entered, seen = threading.Event(), queue.SimpleQueue[bool]()

    def prepare(request: Generate) -> str:
        seen.put(is_given_up())
        entered.set()
        while request.id == 1 and not is_given_up():
            time.sleep(0.01)
        return f"job {request.id}"

    preparation = Preparation(prepare, told.put, longest_seconds=SECONDS if cancelled else 0.05)
    preparation.begin(Generate(1, ""))
    assert entered.wait(SECONDS)
    if cancelled:
        preparation.cancel(1)
    else:
        assert failure(told).id == 1
    following = preparation if cancelled else Preparation(prepare, told.put)
    for number in (2, 3):  # the thread that was given up for one request works for others
        following.begin(Generate(number, ""))
        assert told.get(timeout=SECONDS) == f"job {number}"
    assert [seen.get(timeout=SECONDS) for _ in range(3)] == [False] * 3
    assert not is_given_up()


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError()])
def test_an_error_is_that_of_its_request(told: Told, error: Exception) -> None:
    def prepare(request: Generate) -> str:
        raise error

    broken: Callable[[Generate], str] = prepare
    Preparation(broken, told.put).begin(Generate(1, ""))
    failed = failure(told)
    assert (failed.id, failed.kind) == (1, "internal")
