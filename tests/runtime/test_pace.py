"""When the caller of a pool works alone: told what steps took, and a pool whose program is the same either way."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.kernels.pace import HOLD, REST, TRIAL, Pace

FEW = 25  # steps in which a stall is noticed


def steps(pace: Pace, count: int, together: int, alone: int, stalled: int) -> int:
    """So many steps; how many of them were alone."""
    by_itself = 0
    for _ in range(count):
        by_itself += pace.alone
        pace.took(alone if pace.alone else together, 0 if pace.alone else stalled)
    return by_itself


def test_all_threads_work_while_none_is_away() -> None:
    pace = Pace(2)
    assert steps(pace, 5000, together=100, alone=180, stalled=5) == 0


@pytest.mark.parametrize("threads", [1, 8])
def test_nobody_and_many_are_never_left(threads: int) -> None:
    assert steps(Pace(threads), 2000, together=1000, alone=10, stalled=900) == 0


def test_alone_while_that_is_faster_and_together_again_afterwards() -> None:
    pace = Pace(2)
    steps(pace, 50, together=100, alone=120, stalled=0)
    steps(pace, FEW, together=250, alone=120, stalled=150)
    assert pace.alone
    assert steps(pace, 5000, together=250, alone=120, stalled=150) > 4600
    steps(pace, HOLD + TRIAL, together=100, alone=120, stalled=0)
    assert steps(pace, 1000, together=100, alone=120, stalled=0) == 0


def test_together_where_alone_is_slower_still() -> None:
    pace = Pace(2)
    assert steps(pace, 10 * REST, together=150, alone=200, stalled=75) <= 11 * TRIAL


def test_a_program_does_the_same_with_and_without_the_others() -> None:
    from runtime.kernels.leaves import Leaves
    from runtime.kernels.pool import Pool
    from runtime.kernels.reshape import scale
    from runtime.weights import aligned_array

    count, x = np.array([1000], np.int64), np.ones((1000, 3), np.float32)
    arguments = aligned_array((4,), np.int64)
    arguments[:3] = count.ctypes.data, x.ctypes.data, 3
    arguments.view(np.float64)[3] = 2.0
    program = np.array([(scale.address(Leaves().cache), arguments.ctypes.data, 0)] * 2, np.int64)
    counters, pool = aligned_array((2, 8), np.int64), Pool(2)
    for state in ("watching", "staying alone", "watching", "staying alone"):
        pool._pace._state = state
        pool.run(program, counters, single=True)
        assert not counters.any()
    assert (np.diff(pool.run_timed(program, counters, single=True)) > 0).all()
    pool.close()
    assert (x == 4.0**5).all()
