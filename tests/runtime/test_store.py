"""What is written into the cache in 16 bits, and queries beside it: against their NumPy twins."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from runtime.core import BLOCK_TOKENS
from runtime.kernels import store
from runtime.kernels.driver import FAST
from runtime.kernels.jit import njit
from runtime.kernels.kept import F16, LARGEST, LENGTH, VALUE

Array = np.ndarray
ROWS = {
    "plain": lambda rng, size: rng.normal(size=size) * 3,
    "one large": lambda rng, size: np.where(np.arange(size) == size // 2, -4e4, rng.normal(size=size)),
    "alike": lambda rng, size: np.full(size, 7.3),
    "nothing": lambda rng, size: np.zeros(size),
    "next to nothing": lambda rng, size: rng.normal(size=size) * 1e-6,  # below f16's normal numbers
    "less": lambda rng, size: rng.normal(size=size) * 1e-25,
}
every_row = pytest.mark.parametrize(("kind", "size"), list(itertools.product(ROWS, (1, 7, 64, 80, 128))))


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def write(form: int, x: int, size: int, out: int, slot: int) -> float:
    """A key (0), a value (1) or a query (2), whose scale is the result."""
    if form == 0:
        store.store_key(x, size, 16, out, slot)
    elif form == 1:
        store.store_value(x, size, 16, out, slot)
    else:
        return float(store.store_query(x, size, out))
    return 0.0


def rows(kind: str, size: int) -> Array:
    """Of all tokens of a block."""
    rng = np.random.default_rng(3)
    return np.array([ROWS[kind](rng, size) for _ in range(BLOCK_TOKENS)], np.float32)


def head(form: int, x: Array) -> tuple[Array, Array]:
    """A block's numbers in the order in which they lie, and the scales; the block was full of something else before."""
    tokens, size = x.shape
    out = np.full(F16.head_bytes(size), 0xA5, np.uint8)
    for slot in range(tokens):
        row = x[slot].copy()
        write(form, row.ctypes.data, size, out.ctypes.data, slot)
    return out[: -4 * tokens].view(np.int16), out[-4 * tokens :].view(np.float32)


def stored(form: int, kind: str, size: int) -> tuple[Array, Array, Array]:
    """The same of `rows`, and these in f16."""
    x = rows(kind, size)
    return *head(form, x), x.astype(np.float16).astype(np.float64)


@every_row
def test_keys(kind: str, size: int) -> None:
    numbers, scales, halves = stored(0, kind, size)
    length, largest = np.sqrt((halves**2).sum(1)), np.abs(halves).max(1)
    np.testing.assert_allclose(scales, np.maximum(length / LENGTH, largest / LARGEST), rtol=1e-6, atol=2e-20)
    words = numbers.reshape(-1, BLOCK_TOKENS, 2).transpose(1, 0, 2).reshape(BLOCK_TOKENS, -1)
    assert np.abs(words[:, :size] * scales[:, None].astype(np.float64) - halves).max(initial=0) <= 0.504 * scales.max()
    assert not words[:, size:].any()
    assert (words.astype(np.int64) ** 2).sum(1).max() < LENGTH**2 * 1.01 < 2**31


@every_row
def test_values(kind: str, size: int) -> None:
    numbers, scales, halves = stored(1, kind, size)
    np.testing.assert_allclose(scales, np.abs(halves).max(1) / VALUE, rtol=1e-6, atol=2e-20)
    wanted = np.rint(halves / scales[:, None]).astype(np.int16)
    found = numbers[: BLOCK_TOKENS * size].reshape(-1, size, 2).transpose(0, 2, 1).reshape(BLOCK_TOKENS, size)
    assert np.abs(found.astype(np.int32) - wanted).max() <= 1  # of what lies between two numbers


@every_row
def test_queries(kind: str, size: int) -> None:
    x, out = rows(kind, size)[0], np.full(size + size % 2 + 1, 77, np.int16)
    scale = write(2, x.ctypes.data, size, out.ctypes.data, 0)
    assert np.abs(out[:size] * scale - x).max() <= 0.504 * scale
    assert out[size:].tolist() == [0] * (size % 2) + [77]


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e30, 65520.0])
def test_what_f16_does_not_have_shows_in_the_scale(number: float) -> None:
    x = rows("plain", 64)
    x[9, 5] = number
    for form in (0, 1):
        scales = head(form, x)[1]
        assert not np.isfinite(scales[9])
        assert np.isfinite(np.delete(scales, 9)).all()
