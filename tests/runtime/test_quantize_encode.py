"""The bytes of every type against those of llama.cpp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.core import ModelError
from runtime.quantize.encode import ENCODED, encode
from runtime.quantize.weighing import NEEDY, WEIGHED
from runtime.quants import BY_NAME

FOLDER = Path(__file__).parents[1] / "golden/quantize"
GOLDEN, WEIGHED_GOLDEN = dict(np.load(FOLDER / "blocks.npz")), dict(np.load(FOLDER / "weighed.npz"))
LIMITS = {"TQ1_0": 1.0, "TQ2_0": 1.0, "Q2_K": 0.35, "Q3_K": 0.2, "MXFP4": 0.2, "IQ3_S": 0.2, "IQ3_XXS": 0.3, "IQ2_S": 0.4}
LIMITS |= {"IQ1_S": 0.62, "IQ1_M": 0.58, "IQ2_XXS": 0.48, "IQ2_XS": 0.42}
"""Root mean square errors of normal values that a type may leave."""


@pytest.mark.parametrize("name", sorted(ENCODED - NEEDY - {"F32"}))
def test_same_bytes(name: str) -> None:
    values = GOLDEN["values"].reshape(-1, BY_NAME[name].block_size)
    _compare(name, values, encode(name, values), GOLDEN[name], np.ones_like(values))


@pytest.mark.parametrize("name", sorted(WEIGHED))
def test_same_bytes_by_importance(name: str) -> None:
    count = WEIGHED_GOLDEN[name].size // BY_NAME[name].block_bytes * BY_NAME[name].block_size
    rows = GOLDEN["values"].reshape(-1)[:count].reshape(-1, 512)
    importance = np.ascontiguousarray(np.broadcast_to(WEIGHED_GOLDEN["importance"], rows.shape))
    blocks = (-1, BY_NAME[name].block_size)
    _compare(name, rows.reshape(blocks), encode(name, rows, importance), WEIGHED_GOLDEN[name], importance.reshape(blocks))


def _compare(name: str, values: np.ndarray, found: np.ndarray, golden: np.ndarray, importance: np.ndarray) -> None:
    expected = golden.reshape(found.shape)
    different = (found != expected).any(axis=1)
    if name == "IQ3_S":
        # llama.cpp does not step over a group of zeros, and writes the groups that follow into the wrong places
        broken = (values.reshape(-1, 8, 32) == 0).all(axis=2).any(axis=1)
        assert broken.any()
        ours, theirs = (importance * np.square(BY_NAME[name].dequantize(b) - values) for b in (found, expected))
        assert ours[broken].sum() <= theirs[broken].sum()
        different &= ~broken
    wrong = np.flatnonzero(different)
    assert not len(wrong), f"{len(wrong)} of {len(values)} blocks differ, the first is {wrong[0]}"


@pytest.mark.parametrize("name", sorted(ENCODED))
def test_what_is_read_is_close_to_what_was_written(name: str) -> None:
    kind = BY_NAME[name]
    values = np.random.default_rng(5).normal(size=(4096 // kind.block_size, kind.block_size)).astype(np.float32)
    error = kind.dequantize(encode(name, values, np.ones_like(values))).reshape(values.shape) - values
    assert np.sqrt(np.mean(error**2)) < LIMITS.get(name, 0.11)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q4_K"])
def test_values_that_are_no_numbers(name: str, bad: float) -> None:
    values = np.ones((2, BY_NAME[name].block_size), np.float32)
    values[1, 0] = bad
    with pytest.raises(ModelError, match="infinite or no numbers"):
        encode(name, values)


def test_what_counts_comes_out_better() -> None:
    values = np.random.default_rng(5).normal(size=(64, 256)).astype(np.float32)
    importance = np.ones_like(values)
    importance[:, ::4] = 100
    weighed, plain = (BY_NAME["Q2_K"].dequantize(encode("Q2_K", values, given)) - values for given in (importance, None))
    assert np.square(weighed[:, ::4]).sum() < 0.8 * np.square(plain[:, ::4]).sum()


def test_types_that_know_no_importance() -> None:
    values = GOLDEN["values"].reshape(-1, 32)
    assert np.array_equal(encode("Q8_0", values, np.zeros_like(values)), encode("Q8_0", values))


@pytest.mark.parametrize("name", sorted(ENCODED - {"F32", "BF16", "MXFP4"}))
def test_values_that_are_too_large(name: str) -> None:
    values = np.full((1, BY_NAME[name].block_size), 1e9, np.float32)
    values[0, ::2] *= -1
    with pytest.raises(ModelError, match="too large"):
        encode(name, values, np.ones_like(values))


@pytest.mark.parametrize("name", sorted(NEEDY))
def test_types_that_need_importance(name: str) -> None:
    with pytest.raises(ModelError, match="importance matrix"):
        encode(name, np.zeros((1, 256), np.float32))
