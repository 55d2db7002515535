"""A thread's place in a Program's row: what it works on, where others see that, and where it keeps a result until it counts.

A thread may be kept off its core in the middle of a piece, and all others would wait for that piece. So one of them may do it
again: whoever is first to `commit` writes the result, and the other's is dropped. Until then it lies in the thread's own memory
(`STAGING`). A thread that comes back late may find that the row, even the step, is long over: it reads what others now write, so
what it reads may lead it astray in numbers, but never in addresses (see `still`), and its result is dropped.

The word at a desk's address is the only one that other threads write; its states:

    OUT         another thread has arrived in its stead (see `team`); what it does does not count
    AWAY        as OUT, and it has noticed
    IDLE        has done its part of all rows before `number`
    HELPING     as IDLE, while it does another thread's piece
    BUSY        in the open row, with nothing that another could do
    WORKING     with `piece` of row `number`
    CONTESTED   as WORKING, and another thread does the same piece
"""

from __future__ import annotations

from typing import Any

from runtime.kernels.jit import njit
from runtime.kernels.memory import acquired, compare_swap, fetch_add, i64, load_acquire, store_release, ticks

OUT, AWAY, IDLE, HELPING, BUSY, WORKING, CONTESTED = range(7)
PIECE_SHIFT, NUMBER_SHIFT = 3, 24  # of a state: what it is, the piece, and the number of the row

# fields (int64); the state has a cache line of its own
STATE = 0
ENTRY, COUNTER, NUMBER, EXPECTED, STAGING, ROOM, RELEASED = 8, 9, 10, 11, 12, 13, 14
VICTIM, PIECE, PROGRESS, BEGAN, USUAL = 16, 17, 18, 19, 20
FIELDS = 24
# ENTRY: address of the row that it is in, COUNTER: of that row's counter, NUMBER: which row that is. EXPECTED: the number of the
# row that it enters next. STAGING: address, and ROOM: bytes there. RELEASED: address of the number of the open row. VICTIM: desk
# whose PIECE is done again, or 0. PROGRESS: of that. BEGAN: ticks at which its own PIECE was begun. USUAL: ticks that one takes.
GIVEN, TAKEN, WON = 0, 1, 2  # PROGRESS

NOTHING = 1 << 60  # a piece that no row has


@njit(inline="always")
def state_of(kind: int, number: int, piece: int) -> int:
    """A state in one word."""
    return (number << NUMBER_SHIFT) + (piece << PIECE_SHIFT) + kind


@njit(inline="always")
def kind_of(state: int) -> int:
    """OUT, AWAY, ..."""
    return state & ((1 << PIECE_SHIFT) - 1)


@njit(inline="always")
def piece_of(state: int) -> int:
    """The piece in work."""
    return (state & ((1 << NUMBER_SHIFT) - 1)) >> PIECE_SHIFT


@njit(inline="always")
def claim(desk: int, step: int) -> Any:
    """The next piece of this row's work: the first of `step` items that nobody else has taken."""
    return fetch_add(i64(desk, FIELDS)[COUNTER], step)


@njit(inline="always")
def take(desk: int) -> Any:
    """The next piece of this row's work, or that of another thread which is to be done again; then none that a row has."""
    d = i64(desk, FIELDS)
    if d[VICTIM] == 0:
        return fetch_add(d[COUNTER], 1)
    if d[PROGRESS] != GIVEN:
        return NOTHING
    d[PROGRESS] = TAKEN
    return d[PIECE]


@njit(inline="always")
def helps(desk: int) -> Any:
    """Whether the piece is another thread's: then nothing may be done that does not wait for `commit`."""
    return i64(desk, FIELDS)[VICTIM] != 0


@njit(inline="always")
def show(desk: int, piece: int, nbytes: int) -> Any:
    """Let others see the piece, whose results take so many bytes: the address where they are to be kept until they `commit`, or 0
    where there is no room for them. Then they are written where they belong, and nobody does them again; below 0: the piece is
    another thread's and not to be done."""
    d = i64(desk, FIELDS)
    if d[ROOM] <= nbytes:
        return -1 if d[VICTIM] != 0 else 0
    if d[VICTIM] == 0:
        d[PIECE], d[BEGAN] = piece, ticks()
        store_release(desk, state_of(WORKING, d[NUMBER], piece))
    return d[STAGING]


@njit(inline="always")
def still(desk: int) -> Any:
    """Whether the row was open until now, so that indices that were read before are those of this row. Of a row whose results are
    kept aside."""
    d = i64(desk, FIELDS)
    acquired()
    return load_acquire(d[RELEASED]) == d[NUMBER]


@njit(inline="always")
def commit(desk: int, kept: int) -> Any:
    """Whether the result of the piece, as `show` had it `kept`, is to be copied to where it belongs. If not, the caller has to
    leave the row at once."""
    if kept == 0:
        return True
    d = i64(desk, FIELDS)
    working, contested = state_of(WORKING, d[NUMBER], d[PIECE]), state_of(CONTESTED, d[NUMBER], d[PIECE])
    if d[VICTIM] != 0:
        if not compare_swap(d[VICTIM], contested, OUT):
            return False
        d[PROGRESS] = WON
        return True
    if not compare_swap(desk, working, BUSY) and not compare_swap(desk, contested, BUSY):
        return False
    # what a piece takes where nobody disturbs: one that took long counts little
    d[USUAL] += (min(ticks() - d[BEGAN], 2 * d[USUAL] + 1000) - d[USUAL]) >> 2
    return True
