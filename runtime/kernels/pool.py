"""The thread pool: persistent threads that run a Program together with the caller, without the GIL.

A Program is a table of rows (kernel address, argument address, whether its pieces are rows of activations). Every thread walks
all rows; inside a row the kernel claims pieces of work from the row's counter, and a barrier stands between rows. So a whole
decode step is one call. Where a step has a single row, what has only one piece is the first thread's, with no barrier in
between: on sixteen cores a barrier takes longer than such work. Where few threads are waited for long, such a step may be the
first thread's as a whole: see `pace`.

Between steps the threads spin for a moment, then yield, then sleep in the kernel (a futex on Linux), so that an idle
runner uses no CPU.
"""

from __future__ import annotations

import platform
import sys
import threading

import numpy as np
import numpy.typing as npt
from numba import types

from runtime.kernels.jit import njit
from runtime.kernels.memory import call4, fetch_add, i64, load_acquire, load_strict, pause, store_release, ticks
from runtime.kernels.pace import Pace

SPINS = 4000  # `pause`s, about 50 us, before a waiting thread gives its core away
YIELDS = 200  # then so many sched_yield before it sleeps

# fields of the control block; those that several threads write have a cache line (8 int64) of their own
_TICKET, _ARRIVED, _SLEEPERS = 0, 8, 16
_PROGRAM, _ROWS, _COUNTERS, _BASE, _STOP, _TIMES, _SINGLE, _STALLED, _FIELDS = 24, 25, 26, 27, 28, 29, 30, 31, 32

_COLUMNS = 3  # of a program

_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), 0) if sys.platform == "linux" else 0
_FUTEX_WAIT, _FUTEX_WAKE = 128, 129  # the process-private forms

_sched_yield = types.ExternalFunction("sched_yield", types.int32())
_usleep = types.ExternalFunction("usleep", types.int32(types.int32))
_syscall = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))

Table = npt.NDArray[np.int64]


class Pool:
    """`threads` threads in all, the caller's included; one program runs at a time."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pace = Pace(threads)
        self._control: npt.NDArray[np.int64] = np.zeros(_FIELDS, np.int64)
        self._running = [
            threading.Thread(
                target=_work, args=(self._control.ctypes.data, thread, threads), daemon=True, name=f"kernel-{thread}"
            )
            for thread in range(1, threads)
        ]
        for thread in self._running:
            thread.start()

    def run(self, program: Table, counters: npt.NDArray[np.int64], single: bool = False) -> None:
        """Run every row of `program` (rows, 3) in order; `counters` (rows, 8) are zero before and after. `single`: the step
        has one row."""
        assert len(program), "without a barrier a thread could miss this program and run the next one twice"
        assert program.shape[1] == _COLUMNS
        step = self._control.ctypes.data, program.ctypes.data, len(program), counters.ctypes.data
        if not single:
            _run(*step, self.threads, 0)
        elif self._pace.alone:
            self._pace.took(_run_alone(*step), 0)
        else:
            elapsed = _run(*step, self.threads, 1)
            self._pace.took(elapsed, int(self._control[_STALLED]))

    def run_timed(self, program: Table, counters: npt.NDArray[np.int64], single: bool = False) -> npt.NDArray[np.int64]:
        """The same; ticks of the CPU's counter at the start and after each row, (rows + 1,)."""
        times: npt.NDArray[np.int64] = np.zeros(len(program) + 1, np.int64)
        self._control[_TIMES] = times.ctypes.data
        self.run(program, counters, single)
        self._control[_TIMES] = 0
        return times

    def close(self) -> None:
        """End the threads; the pool is of no use afterwards."""
        if self._running:
            _stop(self._control.ctypes.data)
        for thread in self._running:
            thread.join()
        self._running = []


@njit(nogil=True, cache=True, error_model="numpy")
def _run(control: int, program: int, rows: int, counters: int, threads: int, single: int) -> int:
    """Returns the ticks that it took; those of them that others were waited for long are in the control block."""
    begin, fields = ticks(), i64(control, _FIELDS)
    fields[_STALLED] = 0
    fields[_PROGRAM], fields[_ROWS], fields[_COUNTERS], fields[_SINGLE] = program, rows, counters, single
    fields[_BASE] = fields[_ARRIVED]
    _wake(control)
    _walk(control, 0, threads)
    return int(ticks() - begin)


@njit(nogil=True, cache=True, error_model="numpy")
def _run_alone(control: int, program: int, rows: int, counters: int) -> int:
    """The same without the other threads, which go on waiting for a program of theirs."""
    begin, times = ticks(), i64(control, _FIELDS)[_TIMES]
    table = i64(program, _COLUMNS * rows)
    for row in range(rows):
        if times != 0:
            i64(times, row + 1)[row] = ticks()
        call4(table[_COLUMNS * row], (table[_COLUMNS * row + 1], counters + 64 * row, 0, 1))
        store_release(counters + 64 * row, 0)
    if times != 0:
        i64(times, rows + 1)[rows] = ticks()
    return int(ticks() - begin)


@njit(nogil=True, cache=True, error_model="numpy")
def _stop(control: int) -> None:
    i64(control, _FIELDS)[_STOP] = 1
    _wake(control)


@njit(nogil=True, cache=True, error_model="numpy")
def _work(control: int, thread: int, threads: int) -> None:
    fields = i64(control, _FIELDS)
    seen = 0
    while True:
        _wait_for_ticket(control, seen)
        seen += 1
        if fields[_STOP] != 0:
            return
        _walk(control, thread, threads)


@njit(nogil=True, cache=True, error_model="numpy")
def _walk(control: int, thread: int, threads: int) -> None:
    """This thread's part of the program. A row ends when `threads` more arrivals are counted; of several rows in turn that are
    the first thread's alone, only the last."""
    fields = i64(control, _FIELDS)
    rows, counters = fields[_ROWS], fields[_COUNTERS]
    program = i64(fields[_PROGRAM], _COLUMNS * rows)
    single = fields[_SINGLE] != 0
    arrivals = fields[_BASE]
    times = fields[_TIMES] if thread == 0 else 0
    if times != 0:
        i64(times, 1)[0] = ticks()
    for row in range(rows):
        counter = counters + 64 * row
        at = _COLUMNS * row
        alone = single and program[at + 2] != 0
        if not alone:
            call4(program[at], (program[at + 1], counter, thread, threads))
        elif thread == 0:
            call4(program[at], (program[at + 1], counter, 0, 1))
        if not (alone and row + 1 < rows and program[at + _COLUMNS + 2] != 0):
            arrivals += threads
            if fetch_add(control + 8 * _ARRIVED, 1) + 1 != arrivals:
                stalled = _wait_for_arrivals(control, arrivals)
                if thread == 0:
                    fields[_STALLED] += stalled
        if thread == 0:  # everybody is done with this row's counter
            store_release(counter, 0)
        if times != 0:
            i64(times, row + 2)[row + 1] = ticks()


@njit(nogil=True, cache=True, error_model="numpy")
def _wait_for_arrivals(control: int, arrivals: int) -> int:
    """Returns the ticks that were waited after the first SPINS."""
    spins = since = 0
    while load_acquire(control + 8 * _ARRIVED) - arrivals < 0:
        spins += 1
        if spins < SPINS:
            pause()
        else:
            if since == 0:
                since = ticks()
            _sched_yield()
    return int(ticks() - since) if since != 0 else 0


@njit(nogil=True, cache=True, error_model="numpy")
def _wait_for_ticket(control: int, seen: int) -> None:
    ticket = control + 8 * _TICKET
    spins = 0
    while load_acquire(ticket) == seen:
        spins += 1
        if spins < SPINS:
            pause()
        elif spins < SPINS + YIELDS:
            _sched_yield()
        else:
            _sleep(control, seen)


@njit(nogil=True, cache=True, error_model="numpy")
def _sleep(control: int, seen: int) -> None:
    """Sleep until the ticket is no longer `seen`. The count of sleepers goes up before the ticket is read again, and
    `_wake` moves the ticket before it reads the count, so one of the two sees the other."""
    ticket, sleepers = control + 8 * _TICKET, control + 8 * _SLEEPERS
    if _FUTEX == 0:
        _usleep(200)
        return
    fetch_add(sleepers, 1)
    if load_strict(ticket) == seen:
        _syscall(_FUTEX, ticket, _FUTEX_WAIT, seen & 0xFFFFFFFF, 0, 0, 0)  # compares the low 32 bits
    fetch_add(sleepers, -1)


@njit(nogil=True, cache=True, error_model="numpy")
def _wake(control: int) -> None:
    fetch_add(control + 8 * _TICKET, 1)
    if _FUTEX != 0 and load_strict(control + 8 * _SLEEPERS) > 0:
        _syscall(_FUTEX, control + 8 * _TICKET, _FUTEX_WAKE, 0x7FFFFFFF, 0, 0, 0)
