"""What the leaves of attention of a tier have to hold. `test_leaves.py` runs this file in a child process for each tier."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from leaf_twins import Array, Guarded

from runtime.core import BLOCK_TOKENS
from runtime.kernels.kept import GROUP, KINDS, Kept
from runtime.kernels.leaves import COLUMNS, Leaves

SEVEN = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 7)
QUANTISED = [kind for kind in KINDS.values() if kind.bits < 16]
SIZES = (32, 64, 80, 96, 128, 160, 256)
every_kind = pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
at_either_end = pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])


@pytest.fixture(scope="module")
def leaves() -> Leaves:
    return Leaves()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def run(leaf: int, columns: int, weights: Array, stride: int, rows: int, factors: Array, n: int, *, at_end: bool = True) -> Array:
    """All `factors` (a multiple of `columns`, rows) f32 through a leaf, between guard pages: (factors, n)."""
    guarded, out = Guarded.copy(weights, at_end=at_end), np.empty((len(factors), n), np.float32)
    for first in range(0, len(factors), columns):
        xs = [Guarded.copy(factor, at_end=at_end) for factor in factors[first : first + columns]]
        outs = [Guarded(4 * n, at_end=at_end) for _ in xs]
        inputs, outputs = (np.array([each.address for each in some], np.int64) for some in (xs, outs))
        SEVEN(leaf)(guarded.address, stride, rows, inputs.ctypes.data, outputs.ctypes.data, n, 1 << 20)
        out[first : first + columns] = [each.array.view(np.float32) for each in outs]
    return out


def keys_of(kind: Kept, head: Array, size: int) -> Array:
    """The quantised keys in `head` as numbers: (size, 64)."""
    groups = head.reshape(size // GROUP, -1)
    quants, scales = groups[:, : -2 * BLOCK_TOKENS], groups[:, -2 * BLOCK_TOKENS :].copy().view("<f2").astype(np.float32)
    values = integers(kind, quants.reshape(len(groups), -1, BLOCK_TOKENS)) * scales[:, None]
    return values.reshape(size, BLOCK_TOKENS)


def values_of(kind: Kept, head: Array, size: int) -> Array:
    """The quantised values in `head` as numbers: (64, size)."""
    end = BLOCK_TOKENS * size * kind.bits // 8
    quants, scales = head[:end].reshape(BLOCK_TOKENS * size // GROUP, -1, 1), head[end:].copy().view("<f2").astype(np.float32)
    return (integers(kind, quants)[:, :, 0] * scales[:, None]).reshape(BLOCK_TOKENS, size)


def integers(kind: Kept, quants: Array) -> Array:
    """(groups, bytes of a group, n) -> (groups, 32, n)."""
    if kind.bits == 8:
        return quants.view(np.int8).astype(np.float32)
    return np.concatenate([quants & 15, quants >> 4], 1).astype(np.float32) - 8


def assert_near(out: Array, factors: Array, weights: Array) -> None:
    """Sums of `weights` (rows, n) times the factors, within the roundings of a sum."""
    expected = factors.astype(np.float64) @ weights.astype(np.float64)
    bound = np.abs(factors).astype(np.float64) @ np.abs(weights).astype(np.float64)
    assert (np.abs(out - expected) <= 1e-6 * bound).all()


@at_either_end
@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("n", [1, 7, 8, 16, 31, 32, 64, 80, 131])
@pytest.mark.parametrize("form", ["keys", "opened"])
def test_sums_of_floats(leaves: Leaves, rows: int, n: int, form: str, at_end: bool, rng: np.random.Generator) -> None:
    weights = rng.normal(size=(rows, n)).astype(np.float16 if form == "keys" else np.float32)
    factors, stride = rng.normal(size=(8, rows)).astype(np.float32), weights.itemsize * n
    outs = [run(leaves.sums(form, KINDS["f16"], c), c, weights, stride, rows, factors, n, at_end=at_end) for c in COLUMNS]
    assert_near(outs[0], factors, weights)
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])


@at_either_end
@pytest.mark.parametrize("span", [(0, 64, 64), (0, 1, 64), (3, 100, 128), (17, 17, 64), (0, 0, 64), (60, 512, 512)])
@pytest.mark.parametrize("top", [-1e30, 2.5])
def test_weights_of_scores(
    leaves: Leaves, span: tuple[int, int, int], top: float, at_end: bool, rng: np.random.Generator
) -> None:
    first, end, padded = span
    scores = rng.normal(0, 30, padded).astype(np.float32)
    x, numbers = Guarded.copy(scores, at_end=at_end), np.array([0.25, top, 0, 0], np.float32)
    address = numbers.ctypes.data
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)(leaves.weigh())(x.address, first, end, padded, address, address + 8)
    scaled, weights = scores[first:end].astype(np.float64) * 0.25, x.array.view(np.float32)
    highest = max([top, *scaled])
    assert numbers[2] == np.float32(highest)
    assert not np.any(np.delete(weights, range(first, end)))
    np.testing.assert_allclose(weights[first:end], np.exp(scaled - highest), rtol=3e-6)
    np.testing.assert_allclose(numbers[3], np.exp(scaled - highest).sum(), rtol=3e-6)


def random_head(kind: Kept, size: int, scales_at: Array, rng: np.random.Generator) -> Array:
    """A head's bytes: every quant random, the scales (indices of f16 in the head) of ordinary size."""
    head = rng.integers(0, 256, kind.head_bytes(size), np.uint8)
    head.view("<f2")[scales_at] = rng.normal(0, 0.1, scales_at.shape).astype("<f2")
    return head


@every_kind
@at_either_end
@pytest.mark.parametrize("size", [size for size in SIZES if size % GROUP == 0])
def test_products_with_keys(leaves: Leaves, kind: Kept, size: int, at_end: bool, rng: np.random.Generator) -> None:
    group = BLOCK_TOKENS * (2 * kind.bits + 1)  # f16s in the quants and scales of 32 dimensions
    places = np.arange(size // GROUP)[:, None] * group + np.arange(2 * kind.bits * BLOCK_TOKENS, group)
    head, factors = random_head(kind, size, places, rng), rng.normal(size=(8, size)).astype(np.float32)
    outs = [run(leaves.sums("keys", kind, c), c, head, 64, size, factors, BLOCK_TOKENS, at_end=at_end) for c in COLUMNS]
    assert_near(outs[0], factors, keys_of(kind, head, size))
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])


@every_kind
@at_either_end
@pytest.mark.parametrize("size", [size for size in SIZES if size % GROUP == 0])
def test_sums_of_values(leaves: Leaves, kind: Kept, size: int, at_end: bool, rng: np.random.Generator) -> None:
    quants = BLOCK_TOKENS * size * kind.bits // 16
    head = random_head(kind, size, np.arange(quants, quants + BLOCK_TOKENS * size // GROUP), rng)
    for rows in (1, 5, BLOCK_TOKENS):
        factors = rng.normal(size=(8, rows)).astype(np.float32)
        stride = size * kind.bits // 8
        outs = [run(leaves.sums("values", kind, c), c, head, stride, rows, factors, size, at_end=at_end) for c in COLUMNS]
        assert_near(outs[0], factors, values_of(kind, head, size)[:rows])
        for out in outs[1:]:
            np.testing.assert_array_equal(out, outs[0])
