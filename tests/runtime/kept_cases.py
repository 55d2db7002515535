"""What the leaves of attention of a tier have to hold. `test_leaves.py` runs this file in a child process for each tier."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from leaf_twins import Array, Guarded

from runtime.core import BLOCK_TOKENS
from runtime.kernels.kept import GROUP, KINDS, LARGEST, LENGTH, VALUE, WEIGHTS, Kept
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


def run(leaf: int, columns: int, weights: Array, stride: int, rows: int, factors: Array, n: int, *, at_end: bool = True,
        before: float = 0.0) -> Array:  # fmt: skip
    """All `factors` (a multiple of `columns`) through a leaf, between guard pages: (factors, n). `before`: what is there."""
    guarded, out = Guarded.copy(weights, at_end=at_end), np.empty((len(factors), n), np.float32)
    for first in range(0, len(factors), columns):
        xs = [Guarded.copy(factor, at_end=at_end) for factor in factors[first : first + columns]]
        outs = [Guarded.copy(before * np.arange(1, n + 1, dtype=np.float32), at_end=at_end) for _ in xs]
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


def words_of(rng: np.random.Generator, *shape: int) -> Array:
    """Whole numbers as large as they may be: of each row, which is what one sum multiplies."""
    values = rng.normal(size=shape) * rng.choice([0.01, 1, 50], shape)
    lengths, largest = np.linalg.norm(values, axis=-1, keepdims=True), np.abs(values).max(-1, keepdims=True)
    return np.rint(values / np.maximum(lengths / LENGTH, largest / LARGEST)).astype(np.int16)


def paired(words: Array) -> Array:
    """(rows, n) -> (rows / 2, n, 2): neighbours that one sum adds, side by side; zeros after an odd row."""
    even = np.concatenate([words, np.zeros((len(words) % 2, words.shape[1]), np.int16)])
    return np.ascontiguousarray(even.reshape(-1, 2, words.shape[1]).transpose(0, 2, 1))


@at_either_end
@pytest.mark.parametrize("size", [1, 2, 7, 31, *SIZES])
def test_whole_products_with_keys(leaves: Leaves, size: int, at_end: bool, rng: np.random.Generator) -> None:
    keys, scales = words_of(rng, BLOCK_TOKENS, size), rng.random(BLOCK_TOKENS).astype(np.float32)
    head = np.concatenate([paired(keys.T).reshape(-1).view(np.uint8), scales.view(np.uint8)])
    assert len(head) == KINDS["f16"].head_bytes(size)
    queries = words_of(rng, 8, size)
    queries[:2], keys[:2] = keys[:2] * [[1], [-1]], keys[:2]  # the largest sums that there are
    factors = paired(queries.T).transpose(1, 0, 2).reshape(8, -1).copy()
    outs = [
        run(leaves.sums("keys", KINDS["f16"], c), c, head, 4 * BLOCK_TOKENS, size, factors, BLOCK_TOKENS, at_end=at_end, before=3)
        for c in COLUMNS
    ]
    expected = (queries.astype(np.int64) @ keys.T.astype(np.int64)).astype(np.float32) * scales
    for out in outs:
        np.testing.assert_array_equal(out, expected)


@at_either_end
@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("n", [1, 7, 8, 16, 31, 32, 64, 80, 131])
def test_whole_sums_of_values(leaves: Leaves, rows: int, n: int, at_end: bool, rng: np.random.Generator) -> None:
    values = rng.integers(-VALUE, VALUE, (rows, n), np.int16, endpoint=True)
    values[:, 0] = VALUE * (-1) ** n
    shares = rng.random((8, rows)) ** 3
    weights = np.minimum(np.floor(shares / shares.sum(1, keepdims=True) * WEIGHTS), LARGEST).astype(np.int16)
    factors = paired(weights.T).transpose(1, 0, 2).reshape(8, -1).copy()
    pairs = paired(values)
    outs = [
        run(leaves.sums("values", KINDS["f16"], c), c, pairs, 4 * n, len(pairs), factors, n, at_end=at_end, before=77e3)
        for c in COLUMNS
    ]
    before = np.float32(77e3) * np.arange(1, n + 1, dtype=np.float32)
    expected = (weights.astype(np.int64) @ values.astype(np.int64)).astype(np.float32) + before
    for out in outs:
        np.testing.assert_array_equal(out, expected)


SPANS = [(0, 64, 64), (0, 1, 64), (3, 100, 128), (17, 17, 64), (0, 0, 64), (60, 512, 512)]


def weighed(leaves: Leaves, kind: str, scores: Array, span: tuple[int, int, int], top: float, scales: Array, *, at_end: bool
            ) -> tuple[Array, Array]:  # fmt: skip
    """What the leaf leaves in the place of the scores, and what it tells: maximum, sum, factor."""
    x, of_values, numbers = (Guarded.copy(each, at_end=at_end) for each in (scores, scales, np.array([0.25, top], np.float32)))
    out = Guarded.copy(np.array([0, 0, -1], np.float32), at_end=at_end)
    SEVEN(leaves.weigh(KINDS[kind]))(x.address, *span, numbers.address, of_values.address, out.address)
    return x.array, out.array.view(np.float32)


@at_either_end
@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("top", [-1e30, 2.5])
def test_weights_of_scores(
    leaves: Leaves, span: tuple[int, int, int], top: float, at_end: bool, rng: np.random.Generator
) -> None:
    first, end, padded = span
    scores = rng.normal(0, 30, padded).astype(np.float32)
    made, (peak, total, factor) = weighed(leaves, "q8_0", scores, span, top, scores[:1], at_end=at_end)
    scaled, weights = scores[first:end].astype(np.float64) * 0.25, made.view(np.float32)
    highest = max([top, *scaled])
    assert (peak, factor) == (np.float32(highest), -1)
    assert not np.any(np.delete(weights, range(first, end)))
    np.testing.assert_allclose(weights[first:end], np.exp(scaled - highest), rtol=3e-6)
    np.testing.assert_allclose(total, np.exp(scaled - highest).sum(), rtol=3e-6)


@at_either_end
@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("spread", [0.01, 3, 60])
def test_whole_weights_of_scores(
    leaves: Leaves, span: tuple[int, int, int], spread: float, at_end: bool, rng: np.random.Generator
) -> None:
    first, end, padded = span
    scores, scales = rng.normal(0, spread, padded).astype(np.float32), (rng.random(padded) * 1e-3).astype(np.float32)
    scales[:first], scales[end:] = np.nan, np.inf  # of what is not there
    made, (peak, total, factor) = weighed(leaves, "f16", scores, span, -1e30, scales, at_end=at_end)
    scaled, weights = scores[first:end].astype(np.float64) * 0.25, made.view(np.int16)[:padded]
    assert not np.any(np.delete(weights, range(first, end)))
    assert (weights >= 0).all()
    assert weights.reshape(-1, BLOCK_TOKENS).sum(1, dtype=np.int64).max() <= WEIGHTS + BLOCK_TOKENS
    if first < end:
        expected = np.exp(scaled - scaled.max())
        np.testing.assert_allclose([peak, total], [scaled.max(), expected.sum()], rtol=3e-6)
        wanted = expected * scales[first:end]
        assert np.abs(weights[first:end] * np.float64(factor) - wanted).max() <= 0.501 * factor + 3e-6 * wanted.max()
        blocks = np.zeros(padded)
        blocks[first:end] = wanted
        of_lanes = blocks.reshape(-1, BLOCK_TOKENS).max(0).sum()
        assert factor <= max(of_lanes / WEIGHTS, blocks.max() / LARGEST) * 1.001  # no smaller than they may be


def test_what_is_no_number_shows(leaves: Leaves) -> None:
    scales = np.full(192, 0.1, np.float32)
    scales[70] = np.nan
    for end, shows in ((71, True), (190, True), (70, False)):
        factor = weighed(leaves, "f16", np.zeros(192, np.float32), (0, end, 192), -1e30, scales, at_end=True)[1][2]
        assert np.isnan(factor) == shows


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
        outs = [
            run(leaves.sums("values", kind, c), c, head, stride, rows, factors, size, at_end=at_end, before=0.5) for c in COLUMNS
        ]
        values, before = values_of(kind, head, size)[:rows], 0.5 * np.arange(1, size + 1)
        assert_near(outs[0], np.hstack((factors, np.ones((len(factors), 1)))), np.vstack((values, before)))
        for out in outs[1:]:
            np.testing.assert_array_equal(out, outs[0])
