"""The leaf that adds up f16 rows, against NumPy; the columns of a leaf do not change a sum."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from runtime.kernels.leaves import COLUMNS, Leaves


def mix(columns: int, weights: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """factors (columns, rows) f32, weights (rows, n) f16 -> (columns, n) f32, by the leaf."""
    leaf = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)(Leaves().mix(columns))
    rows, n = weights.shape
    out = np.full((columns, n + 1), np.nan, np.float32)  # one element more: nothing may be written there
    inputs = np.array([row.ctypes.data for row in factors], np.int64)
    outputs = np.array([row.ctypes.data for row in out], np.int64)
    leaf(weights.ctypes.data, weights.strides[0], rows, inputs.ctypes.data, outputs.ctypes.data, n)
    assert np.isnan(out[:, n]).all()
    return out[:, :n]


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("n", [1, 7, 8, 64, 80, 131])
def test_sums(columns: int, rows: int, n: int) -> None:
    rng = np.random.default_rng(n)
    weights = rng.normal(size=(rows, n)).astype(np.float16)
    factors = rng.normal(size=(columns, rows)).astype(np.float32)
    expected = factors.astype(np.float64) @ weights.astype(np.float64)
    bound = np.abs(factors).astype(np.float64) @ np.abs(weights).astype(np.float64)
    assert (np.abs(mix(columns, weights, factors) - expected) <= 1e-6 * bound).all()


def test_columns_do_not_change_a_bit() -> None:
    rng = np.random.default_rng(5)
    weights, factors = rng.normal(size=(64, 77)).astype(np.float16), rng.normal(size=(8, 64)).astype(np.float32)
    together = mix(8, weights, factors)
    for columns in COLUMNS:
        for first in range(0, 8, columns):
            part = mix(columns, weights, factors[first : first + columns])
            np.testing.assert_array_equal(part, together[first : first + columns])
