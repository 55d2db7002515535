"""What the leaf of states of a tier has to hold. `test_leaves.py` runs this file in a child process for each tier."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from leaf_twins import Guarded

from runtime.kernels.delta_leaves import COLUMNS
from runtime.kernels.leaves import Leaves

SEVEN = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 7)


@pytest.mark.parametrize("size", [32, 64, 96, 128])
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
def test_a_step_of_a_state(size: int, at_end: bool) -> None:
    rng, numbers = np.random.default_rng(size), np.array([0.9, 0.6, 0], np.float32)
    state, query, key, value = (rng.normal(size=shape).astype(np.float32) for shape in ((size, COLUMNS), size, size, COLUMNS))
    numbers[2] = query @ key
    given = [Guarded.copy(array, at_end=at_end) for array in (state, query, key, numbers, value)]
    out = Guarded(4 * COLUMNS, at_end=at_end)
    addresses = [each.address for each in given]
    SEVEN(Leaves().learn())(addresses[0], size, *addresses[1:], out.address)
    change = numbers[1] * (value - numbers[0] * (key.astype(np.float64) @ state))
    expected = numbers[0] * state + np.outer(key, change)
    np.testing.assert_allclose(given[0].array.view(np.float32).reshape(size, COLUMNS), expected, atol=3e-5)
    np.testing.assert_allclose(out.array.view(np.float32), query.astype(np.float64) @ expected, atol=3e-4)
