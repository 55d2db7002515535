"""runtime.sampling.usual and runtime.kernels.draws against the chain in NumPy: the same tokens, always."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from runtime.core import FloatArray
from runtime.frames import Sampling
from runtime.kernels import draws
from runtime.kernels.jit import njit
from runtime.sampling import NotANumber, Sampler, masks
from runtime.sampling.masks import Mask
from runtime.sampling.usual import is_usual

Random = np.random.Generator


def plain(random: Random, size: int) -> FloatArray:
    return (random.standard_normal(size) * random.choice([0.1, 1, 3, 100])).astype(np.float32)


def tied(random: Random, size: int) -> FloatArray:
    return random.integers(-2, 3, size).astype(np.float32) * random.choice(np.array([-1, 1], np.float32), size)  # -0 too


def equal(random: Random, size: int) -> FloatArray:
    return np.full(size, random.choice([0.0, -0.0, 5, -1e30]), np.float32)


def impossible(random: Random, size: int) -> FloatArray:
    """Most are, or all."""
    logits = plain(random, size)
    logits[random.random(size) < random.choice([0.5, 0.99, 0.9999, 1])] = -np.inf
    return logits


def wrong(random: Random, size: int) -> FloatArray:
    logits = plain(random, size)
    logits[random.integers(size)] = random.choice([np.nan, -np.nan, np.inf])
    return logits


def shifted(random: Random, size: int) -> FloatArray:
    return plain(random, size) + np.float32(random.choice([-50, 1e4, -1e30]))


KINDS = [plain, tied, equal, impossible, wrong, shifted]
SIZES = [41, 64, 100, 256, 777, 4096, 4100]


def mask_of(random: Random, size: int) -> Mask | None:
    """One that is as long as the logits or nearly, and permits all, nearly all, or few; None as often."""
    if random.random() < 0.3:
        return None
    length = size + int(random.choice([-5, 0, 0, 40]))
    mask = masks.empty(length)
    masks.permit(mask, np.flatnonzero(random.random(length) < random.choice([0, 0.003, 0.03, 0.5, 0.97, 1])).tolist())
    return mask


def options_of(random: Random, seed: int) -> Sampling:
    return Sampling(
        seed=seed,
        top_k=int(random.choice([1, 5, 40, 40, 40, 100, 128])),
        top_p=float(random.choice([0.9, 0.9, 0.5, 1 - 1e-16, 1, 2, 0, -1])),
        min_p=float(random.choice([0, 0, 0.05, 0.5, 1, 2, 1e-300])),
        temperature=float(random.choice([0.8, 0.1, 1e-9, 2, 50])),
    )


def in_numpy(options: Sampling) -> Sampler:
    """A sampler of the same options that does not take them for the usual ones."""
    made = Sampler(options, 64)
    made._is_usual = False
    return made


def outcome(made: Sampler, logits: FloatArray, mask: Mask | None) -> int | None:
    try:
        return made.choose(logits, mask)
    except NotANumber:
        return None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_the_same_tokens(kind: Callable[[Random, int], FloatArray], size: int) -> None:
    random = np.random.Generator(np.random.SFC64(size))
    for seed in range(60):
        options = options_of(random, seed)
        compiled, twin = Sampler(options, 64), in_numpy(options)
        for _ in range(2):
            logits, mask = kind(random, size), mask_of(random, size)
            before = logits.copy()
            with np.errstate(all="ignore"):
                expected = outcome(twin, logits, mask)
            assert outcome(compiled, logits, mask) == expected, (options, mask)
            np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("share", [None, 0.0005, 0.01, 0.97])
def test_a_large_vocabulary(share: float | None) -> None:
    random, mask = np.random.Generator(np.random.SFC64(3)), None
    if share is not None:
        mask = masks.empty(151936)
        masks.permit(mask, np.flatnonzero(random.random(151936) < share).tolist())
    compiled, twin = Sampler(Sampling(seed=1), 64), in_numpy(Sampling(seed=1))
    for _ in range(20):
        logits = np.round(3 * random.standard_normal(152064), 1).astype(np.float32)
        assert compiled.choose(logits, mask) == twin.choose(logits, mask)


def test_which_options_are_the_usual_ones() -> None:
    usual = Sampling()
    assert is_usual(usual)
    assert is_usual(dataclasses.replace(usual, top_p=1.0, min_p=0.5, repeat_penalty=1.3, logit_bias=[(1, 2.0)]))
    unusual = [
        *({"typical_p": 0.5}, {"top_n_sigma": 1.0}, {"xtc_probability": 0.5}, {"dynatemp_range": 0.5}),
        *({"mirostat": 1}, {"mirostat": 2}, {"temperature": 0.0}, {"top_k": 0}, {"top_k": 1000}),
    ]
    for changes in unusual:
        assert not is_usual(dataclasses.replace(usual, **changes)), changes


def test_sums_are_numpys() -> None:
    """Of tokens that are no more than top_k leaves, eight sums side by side."""
    added = njit(lambda weights: draws._sum(weights))
    random = np.random.Generator(np.random.SFC64(1))
    for count in [1, 7, 8, 9, 39, 40, 128] * 50:
        weights = np.exp(3 * random.standard_normal(count)).astype(np.float32)
        assert added(weights) == weights.sum(dtype=np.float64)
