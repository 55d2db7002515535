"""The team of a pool: which threads are in the open row of a Program, and how it comes to the next.

A row is over when all that were in the team when it opened have arrived at its end, or others in their stead. The last one to
arrive opens the next row: everybody else waits until then, so the control block is its own. A thread is put out of the team, by
one that waits for it, where it has not entered the open row, or holds a piece that the other has finished first (see `desk`).
When it is back it joins the row that is open then.
"""

from __future__ import annotations

from typing import Any

from runtime.kernels import futex
from runtime.kernels.desk import (
    AWAY,
    BUSY,
    CONTESTED,
    COUNTER,
    ENTRY,
    EXPECTED,
    GIVEN,
    HELPING,
    IDLE,
    NUMBER,
    OUT,
    PIECE,
    PROGRESS,
    USUAL,
    VICTIM,
    WON,
    WORKING,
    kind_of,
    piece_of,
    state_of,
)
from runtime.kernels.desk import FIELDS as DESK_FIELDS
from runtime.kernels.jit import njit
from runtime.kernels.memory import call4, compare_swap, fetch_add, i64, load_acquire, pause, prefetch, store_release, ticks

# Fields of the control block (int64); those that several threads write have a cache line (8) of their own.
# RELEASED: the number of the open row, counted through the pool's life, and ROW its place in the Program. RUNNING: a Program is.
RELEASED, ROW, RUNNING = 0, 1, 2
# MISSING: arrivals that a row still waits for, in the low bits, and the number of that row. MEMBERS: threads in the team.
MISSING, MEMBERS = 8, 9
SLEEPERS = 16
PROGRAM, ROWS, COUNTERS, SINGLE, TIMES, STOP, THREADS, DESKS = range(24, 32)
FIELDS = 32

_COUNT_BITS = 16  # of MISSING
COLUMNS = 3  # of a program
COUNTER_BYTES = 64  # from one row's counter to the next
ASKED, ASKED_LINES = 10, 7  # rows ahead, and cache lines of the arguments of each, that a thread asks for


@njit(inline="always")
def desk_of(control: int, thread: int) -> Any:
    """Address of a thread's desk."""
    return i64(control, FIELDS)[DESKS] + 8 * DESK_FIELDS * thread


@njit(nogil=True, cache=True, error_model="numpy")
def begin(control: int, program: int, rows: int, counters: int, single: int) -> None:
    """Open the first row of a program; by thread 0, the caller of the pool, while none runs."""
    fields, desk = i64(control, FIELDS), desk_of(control, 0)
    fields[PROGRAM], fields[ROWS], fields[COUNTERS], fields[SINGLE] = program, rows, counters, single
    fields[RUNNING] = 1
    if fields[TIMES] != 0:
        i64(fields[TIMES], 1)[0] = ticks()
    if kind_of(load_acquire(desk)) != IDLE:
        _set_idle(desk, fields[RELEASED] + 1)
        fields[MEMBERS] += 1
    _open(control, 0, 0)


@njit(nogil=True, cache=True, error_model="numpy")
def enter(control: int, thread: int) -> int:
    """Enter the open row, if this thread is not in it or behind it. Returns whether it did."""
    desk = desk_of(control, thread)
    state = load_acquire(desk)
    if kind_of(state) == IDLE:
        number = i64(desk, DESK_FIELDS)[EXPECTED]
        if load_acquire(control + 8 * RELEASED) - number < 0 or not compare_swap(desk, state, BUSY):
            return 0
    else:
        if state == OUT:
            store_release(desk, AWAY)
        number = _join(control)
        if number < 0:
            return 0
        store_release(desk, BUSY)
    i64(desk, DESK_FIELDS)[NUMBER] = number
    _sit(control, desk, i64(control, FIELDS)[ROW])
    return 1


@njit(inline="always")
def _join(control: int) -> int:
    """Add a member to the team of the open row, which cannot end then; returns its number, or -1 where there is none."""
    missing = load_acquire(control + 8 * MISSING)
    if missing & ((1 << _COUNT_BITS) - 1) == 0 or not compare_swap(control + 8 * MISSING, missing, missing + 1):
        return -1
    fetch_add(control + 8 * MEMBERS, 1)
    number = missing >> _COUNT_BITS
    while load_acquire(control + 8 * RELEASED) != number:
        pause()
    return int(number)


@njit(inline="always")
def _set_idle(desk: int, number: int) -> None:
    """The thread has done its part of all rows before that one."""
    i64(desk, DESK_FIELDS)[EXPECTED] = number
    store_release(desk, state_of(IDLE, number, 0))


@njit(nogil=True, cache=True, error_model="numpy")
def work(control: int, thread: int) -> None:
    """This thread's part of the row that it entered, and its arrival at the end."""
    desk = desk_of(control, thread)
    _ask(control, i64(control, FIELDS)[ROW])
    _call(desk, thread, i64(control, FIELDS)[THREADS])
    if load_acquire(desk) == BUSY:  # else it is out: somebody has arrived in its stead
        _set_idle(desk, i64(desk, DESK_FIELDS)[NUMBER] + 1)
        _arrive(control, thread)


@njit(inline="always")
def _sit(control: int, desk: int, row: int) -> None:
    """Put a row of the program on a desk."""
    fields, d = i64(control, FIELDS), i64(desk, DESK_FIELDS)
    d[ENTRY], d[COUNTER] = fields[PROGRAM] + 8 * COLUMNS * row, fields[COUNTERS] + COUNTER_BYTES * row


@njit(inline="always")
def _ask(control: int, row: int) -> None:
    """Ask for the counters and arguments of the rows after this one, and later for their entries: weights have driven them out of
    the caches, and in one row after the other they would be waited for. For who is in the row, and not yet at work."""
    fields = i64(control, FIELDS)
    program, rows = fields[PROGRAM], fields[ROWS]
    for line in range(2):
        prefetch(program + 8 * COLUMNS * (row + 2 * ASKED) + 64 * line)
    for later in range(row + 1, min(row + 1 + ASKED, rows)):
        prefetch(fields[COUNTERS] + COUNTER_BYTES * later)
        arguments = i64(program + 8 * COLUMNS * later, COLUMNS)[1]
        for line in range(ASKED_LINES):
            prefetch(arguments + 64 * line)


@njit(inline="always")
def _call(desk: int, thread: int, threads: int) -> None:
    """Run the kernel of the row on a desk."""
    entry = i64(i64(desk, DESK_FIELDS)[ENTRY], COLUMNS)
    call4(entry[0], (entry[1], desk, thread, threads))


@njit(nogil=True, cache=True, error_model="numpy")
def _arrive(control: int, thread: int) -> None:
    if fetch_add(control + 8 * MISSING, -1) & ((1 << _COUNT_BITS) - 1) == 1:
        row = i64(control, FIELDS)[ROW]
        _close(control, row)
        _open(control, thread, row + 1)


@njit(nogil=True, cache=True, error_model="numpy")
def _close(control: int, row: int) -> None:
    """Nobody works on the row any more."""
    fields = i64(control, FIELDS)
    i64(fields[COUNTERS] + COUNTER_BYTES * row, 1)[0] = 0
    if fields[TIMES] != 0:
        i64(fields[TIMES], row + 2)[row + 1] = ticks()


@njit(nogil=True, cache=True, error_model="numpy")
def _open(control: int, thread: int, row: int) -> None:
    """Open the row to the team, or end the program behind its last one. What has only one piece is done here."""
    fields, desk = i64(control, FIELDS), desk_of(control, thread)
    rows = fields[ROWS]
    while row < rows and fields[SINGLE] != 0 and i64(fields[PROGRAM], COLUMNS * rows)[COLUMNS * row + 2] != 0:
        _sit(control, desk, row)
        _call(desk, thread, 1)
        _close(control, row)
        row += 1
    if row == rows:
        store_release(control + 8 * RUNNING, 0)
        return
    fields[ROW] = row
    # from here on others may join
    store_release(control + 8 * MISSING, ((fields[RELEASED] + 1) << _COUNT_BITS) + fields[MEMBERS])
    fetch_add(control + 8 * RELEASED, 1)
    futex.wake(control + 8 * RELEASED, control + 8 * SLEEPERS)


@njit(nogil=True, cache=True, error_model="numpy")
def waits(control: int, thread: int, number: int) -> int:
    """Whether this thread has done its part of the open row `number`, so that it may `help`."""
    return 1 if load_acquire(desk_of(control, thread)) == state_of(IDLE, number + 1, 0) else 0


@njit(nogil=True, cache=True, error_model="numpy")
def is_out(control: int, thread: int) -> bool:
    """Whether this thread has been put out of the team, and has not noticed."""
    return bool(load_acquire(desk_of(control, thread)) == OUT)


@njit(nogil=True, cache=True, error_model="numpy")
def usual(control: int, thread: int) -> int:
    """Ticks that this thread's pieces take."""
    return int(i64(desk_of(control, thread), DESK_FIELDS)[USUAL])


@njit(nogil=True, cache=True, error_model="numpy")
def assist(control: int, thread: int, number: int) -> None:
    """Of those that row `number` waits for, put one out that has not entered it, or do a piece again. For who `waits`."""
    for other in range(i64(control, FIELDS)[THREADS]):
        desk = desk_of(control, other)
        state = load_acquire(desk)
        if state == state_of(IDLE, number, 0) or state == state_of(HELPING, number, 0):
            if compare_swap(desk, state, OUT):
                fetch_add(control + 8 * MEMBERS, -1)
                _arrive(control, thread)
                return
        elif state == state_of(WORKING, number, piece_of(state)):
            _do_again(control, thread, desk, state)
            return


@njit(nogil=True, cache=True, error_model="numpy")
def _do_again(control: int, thread: int, victim: int, state: int) -> None:
    """The piece that another thread, whose desk had this state, holds; if this one is first, the other is out. Its own state says
    so before it can know whether the row is still open, which may be over at any moment as long as it has not won."""
    desk = desk_of(control, thread)
    d = i64(desk, DESK_FIELDS)
    idle, helping = state_of(IDLE, d[EXPECTED], 0), state_of(HELPING, d[EXPECTED], 0)
    if not compare_swap(desk, idle, helping):
        return
    won = False
    if compare_swap(victim, state, state + (CONTESTED - WORKING)):
        d[VICTIM], d[PIECE], d[PROGRESS] = victim, piece_of(state), GIVEN
        _call(desk, thread, i64(control, FIELDS)[THREADS])
        d[VICTIM] = 0
        won = d[PROGRESS] == WON
    compare_swap(desk, helping, idle)  # else it has been put out of a later row
    if won:
        fetch_add(control + 8 * MEMBERS, -1)
        _arrive(control, thread)
