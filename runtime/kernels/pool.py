"""The thread pool: persistent threads that run a Program together with the caller, without the GIL.

A Program is a table of rows (kernel address, argument address, whether its pieces are rows of activations). One row is open at a
time, and its kernel takes pieces of work from a counter; who arrives last at its end opens the next one (see `team`). So a whole
decode step is one call. Where a step has a single row, what has only one piece is done by that last thread, with no barrier in
between: on sixteen cores a barrier takes longer than such work.

Nobody waits long for a thread that another program keeps off its core: a piece that it holds is done again by one that waits, and
the team goes on without it until it is back.

Between steps the threads spin for a moment, then yield, then sleep in the kernel, so that an idle runner uses no CPU.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
from numba import types

from runtime.kernels import desk, futex, team
from runtime.kernels.jit import njit
from runtime.kernels.memory import fetch_add, i64, load_acquire, pause, store_release, ticks

SPINS = 4000  # `pause`s, about 50 us, before a waiting thread gives its core away
YIELDS = 200  # then so many sched_yield before it sleeps
LOOK = 256  # `pause`s after which, and again after as many, a waiting thread may do another's piece
PATIENCE = 4  # times what a piece takes usually, that it has waited before
ASIDE_BYTES = 128 << 10  # of results that a thread can keep until they count
LINE = 8  # int64 of a cache line

_sched_yield = types.ExternalFunction("sched_yield", types.int32())

Table = npt.NDArray[np.int64]


class Pool:
    """`threads` threads in all, the caller's included; one program runs at a time.

    `lasting`: programs, and all that their kernels read, stay where they are until the pool is closed. Else `run` ends only when
    late threads have noticed that they are.
    """

    def __init__(self, threads: int, *, lasting: bool = False) -> None:
        self.threads = threads
        self._lasting = lasting
        self._desks = _lines(threads * desk.FIELDS).reshape(threads, desk.FIELDS)
        self._control = _lines(team.FIELDS)
        self._aside = _lines(threads * ASIDE_BYTES // 8) if threads > 1 else _lines(0)
        self._seat()
        self._running = [
            threading.Thread(target=_work, args=(self._control.ctypes.data, thread), daemon=True, name=f"kernel-{thread}")
            for thread in range(1, threads)
        ]
        for thread in self._running:
            thread.start()

    def _seat(self) -> None:
        """Before the first row; nobody is in the team yet."""
        control, desks = self._control, self._desks
        control[[team.THREADS, team.DESKS]] = self.threads, desks.ctypes.data
        desks[:, desk.STATE] = desk.AWAY
        desks[:, desk.RELEASED] = control.ctypes.data + 8 * team.RELEASED
        if self.threads > 1:
            desks[:, desk.STAGING] = self._aside.ctypes.data + ASIDE_BYTES * np.arange(self.threads)
            desks[:, desk.ROOM] = ASIDE_BYTES

    def run(self, program: Table, counters: npt.NDArray[np.int64], single: bool = False) -> None:
        """Run every row of `program` (rows, 3) in order; `counters` (rows, 8) are zero before and after. `single`: the step
        has one row."""
        assert program.shape[1] == team.COLUMNS
        control = self._control.ctypes.data
        _run(control, program.ctypes.data, len(program), counters.ctypes.data, int(single))
        if not self._lasting:
            _settle(control)

    def run_timed(self, program: Table, counters: npt.NDArray[np.int64], single: bool = False) -> npt.NDArray[np.int64]:
        """The same; ticks of the CPU's counter at the start and after each row, (rows + 1,)."""
        times: npt.NDArray[np.int64] = np.zeros(len(program) + 1, np.int64)
        self._control[team.TIMES] = times.ctypes.data
        self.run(program, counters, single)
        self._control[team.TIMES] = 0
        return times

    def close(self) -> None:
        """End the threads; the pool is of no use afterwards."""
        if self._running:
            _stop(self._control.ctypes.data)
        for thread in self._running:
            thread.join()
        self._running = []


def _lines(count: int) -> npt.NDArray[np.int64]:
    """So many zeros that begin on a cache line."""
    raw: npt.NDArray[np.int64] = np.zeros(count + LINE, np.int64)
    start = -raw.ctypes.data // 8 % LINE
    return raw[start : start + count]


@njit(nogil=True, cache=True, error_model="numpy")
def _run(control: int, program: int, rows: int, counters: int, single: int) -> None:
    team.begin(control, program, rows, counters, single)
    while _enter(control, 0):
        team.work(control, 0)


@njit(nogil=True, cache=True, error_model="numpy")
def _work(control: int, thread: int) -> None:
    while _enter(control, thread):
        team.work(control, thread)


@njit(nogil=True, cache=True, error_model="numpy")
def _stop(control: int) -> None:
    store_release(control + 8 * team.STOP, 1)
    fetch_add(control + 8 * team.RELEASED, 1)
    futex.wake(control + 8 * team.RELEASED, control + 8 * team.SLEEPERS)


@njit(nogil=True, cache=True, error_model="numpy")
def _settle(control: int) -> None:
    """Wait until no other thread is in a row of a program that is over. The caller is in none: it may have been put out of the
    last one just when it wanted to enter it, and nobody would ever notice."""
    for thread in range(1, i64(control, team.FIELDS)[team.THREADS]):
        while True:
            kind = desk.kind_of(load_acquire(team.desk_of(control, thread)))
            if kind == desk.IDLE or kind == desk.AWAY:
                break
            _sched_yield()


@njit(nogil=True, cache=True, error_model="numpy")
def _enter(control: int, thread: int) -> int:
    """Wait until this thread can enter a row, and enter it. Returns 0 where there is none any more: to the caller when its
    program has ended, to the others when the pool is closed."""
    spins = since = 0
    while True:
        number = load_acquire(control + 8 * team.RELEASED)
        if load_acquire(control + 8 * team.STOP) != 0:
            return 0
        if team.enter(control, thread):
            return 1
        running = load_acquire(control + 8 * team.RUNNING)
        if thread == 0 and running == 0:
            return 0
        if since == 0:
            since = ticks()
        spins += 1
        if spins < SPINS:
            pause()
        elif running != 0 or spins < SPINS + YIELDS:
            _sched_yield()
        elif not team.is_out(control, thread):  # else it was put out just now, which `_settle` waits for it to notice
            futex.sleep(control + 8 * team.RELEASED, control + 8 * team.SLEEPERS, number)
        if running != 0 and (spins % LOOK == 0 or spins >= SPINS):
            _look(control, thread, number, since)


@njit(nogil=True, cache=True, error_model="numpy")
def _look(control: int, thread: int, number: int, since: int) -> None:
    """Help those that row `number` waits for, if this thread has waited long enough since then."""
    if team.waits(control, thread, number) and ticks() - since >= PATIENCE * team.usual(control, thread):
        team.assist(control, thread, number)
