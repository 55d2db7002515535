"""runtime.sampling against a plain twin that does one thing after the other, in Python floats and lists."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable

import numpy as np
import pytest

from runtime.core import FloatArray
from runtime.frames import Sampling
from runtime.sampling import NotANumber, Sampler, SamplingError, Window, highest, log_probabilities

CTX = 1000


def logits_of(seed: int, size: int = 500, spread: float = 2.5) -> FloatArray:
    return (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)


def softmax(candidates: list[tuple[int, float]]) -> list[float]:
    top = max(logit for _, logit in candidates)
    weights = [math.exp(logit - top) for _, logit in candidates]
    return [weight / sum(weights) for weight in weights]


def falling(candidates: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return sorted(candidates, key=lambda candidate: (-candidate[1], candidate[0]))


def naive(logits: Iterable[float], options: Sampling, history: list[int]) -> dict[int, float]:
    """What may come, with its probability."""
    values = list(map(float, logits))
    last = history if options.repeat_last_n < 0 else history[len(history) - min(options.repeat_last_n, len(history)) :]
    for token, count in collections.Counter(last).items():
        value = values[token]
        value = value * options.repeat_penalty if value <= 0 else value / options.repeat_penalty
        values[token] = value - count * options.frequency_penalty - options.presence_penalty
    candidates = list(enumerate(values))
    if options.top_k > 0:
        candidates = falling(candidates)[: options.top_k]
    if options.typical_p < 1:
        chances = softmax(candidates)
        entropy = -sum(chance * math.log(chance) for chance in chances)
        order = sorted(range(len(chances)), key=lambda i: abs(-math.log(chances[i]) - entropy))
        total, kept = 0.0, []
        for i in order:
            kept.append(candidates[i])
            total += chances[i]
            if total > options.typical_p:
                break
        candidates = kept
    if options.top_p < 1:
        candidates = falling(candidates)
        total, kept = 0.0, []
        for candidate, chance in zip(candidates, softmax(candidates), strict=True):
            kept.append(candidate)
            total += chance
            if total >= options.top_p:
                break
        candidates = kept
    if options.min_p > 0:
        best = max(chance for chance in softmax(candidates))
        candidates = [c for c, chance in zip(candidates, softmax(candidates), strict=True) if chance >= options.min_p * best]
    if options.temperature <= 0:
        return {falling(candidates)[0][0]: 1.0}
    warm = [(token, logit / options.temperature) for token, logit in candidates]
    return dict(zip([token for token, _ in warm], softmax(warm), strict=True))


def sampler(options: Sampling, history: Iterable[int] = ()) -> Sampler:
    made = Sampler(options, CTX)
    made.accept(history)
    return made


FILTERS = {
    "defaults": Sampling(),
    "all": Sampling(temperature=1.5, top_k=30, typical_p=0.9, top_p=0.8, min_p=0.05),
    "nothing": Sampling(temperature=1.0, top_k=0, top_p=1.0),
    "top_k": Sampling(temperature=1.0, top_k=5, top_p=1.0),
    "top_k 1": Sampling(temperature=1.0, top_k=1, top_p=1.0),
    "top_k beyond": Sampling(temperature=1.0, top_k=100_000, top_p=0.5),
    "top_p": Sampling(temperature=1.0, top_k=0, top_p=0.7),
    "top_p 0": Sampling(temperature=1.0, top_k=0, top_p=0.0),
    "min_p": Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.1),
    "min_p 1": Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=1.0),
    "typical_p": Sampling(temperature=1.0, top_k=0, top_p=1.0, typical_p=0.5),
    "typical_p, top_p": Sampling(temperature=1.0, top_k=0, top_p=0.8, typical_p=0.8),
    "hot": Sampling(temperature=4.0),
    "cold": Sampling(temperature=0.1),
    "greedy": Sampling(temperature=0.0),
    "greedy, typical_p": Sampling(temperature=0.0, typical_p=0.3, top_k=0, top_p=1.0),
    "penalties": Sampling(temperature=1.0, repeat_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.2, repeat_last_n=50),
    "greedy, penalties": Sampling(temperature=0.0, repeat_penalty=2.0, frequency_penalty=0.5, repeat_last_n=-1),
    "rewards": Sampling(temperature=1.0, repeat_penalty=0.8, presence_penalty=-1.0, frequency_penalty=-0.1),
}


@pytest.mark.parametrize("options", FILTERS.values(), ids=FILTERS)
def test_distribution(options: Sampling) -> None:
    """Draws fall on what the twin allows, as often as it says."""
    logits = logits_of(1)
    history = [int(token) for token in np.random.default_rng(2).integers(0, 500, 200)] + list(np.argsort(-logits)[:10])
    expected = naive(logits, options, history)
    made, draws = sampler(options, history), 3000
    found = collections.Counter(made.sample(logits) for _ in range(draws))
    assert set(found) <= set(expected)
    for token, chance in expected.items():
        deviation = math.sqrt(chance * (1 - chance) / draws)
        assert abs(found[token] / draws - chance) <= 5 * deviation + 1e-3, token


@pytest.mark.parametrize("seed", range(20))
def test_candidates(seed: int) -> None:
    """Many settings, many sizes: exactly the twin's candidates remain."""
    random = np.random.default_rng(seed)
    options = Sampling(
        temperature=1.0,
        top_k=int(random.choice([0, 3, 40, 400])),
        top_p=float(random.choice([1.0, 0.95, 0.3])),
        min_p=float(random.choice([0.0, 0.02])),
        typical_p=float(random.choice([1.0, 0.6])),
    )
    logits = logits_of(seed, size=int(random.choice([5, 70, 5000])), spread=float(random.choice([0.5, 3.0])))
    ids, values = sampler(options)._filter(logits)
    assert sorted(ids) == sorted(naive(logits, options, []))
    assert (values == logits[ids]).all()


def test_the_logits_are_not_touched() -> None:
    logits = logits_of(3)
    before = logits.copy()
    sampler(FILTERS["penalties"], range(100)).sample(logits)
    assert (logits == before).all()


def test_a_seed_gives_the_same_tokens_again() -> None:
    def draw(seed: int) -> list[int]:
        made = sampler(Sampling(temperature=2.0, seed=seed))
        return [made.sample(logits_of(step)) for step in range(30)]

    assert draw(7) == draw(7) != draw(8)
    assert draw(-1) != draw(-1)
    assert draw(-2) == draw(-2)
    assert draw(2**32 + 7) == draw(7)


def test_penalties_move_with_the_window() -> None:
    logits = np.array([0.0, 1.0, 0.9], np.float32)
    made = sampler(Sampling(temperature=0, presence_penalty=0.5, repeat_last_n=2))
    chosen = []
    for _ in range(6):
        chosen.append(made.sample(logits))
        made.accept(chosen[-1:])
    assert chosen == [1, 2, 1, 1, 2, 1]
    made = sampler(Sampling(temperature=0, presence_penalty=5.0, repeat_last_n=0), [1])
    assert made.sample(logits) == 1


def test_window_counts_the_last_tokens() -> None:
    random = np.random.default_rng(0)
    for length in (1, 7, 300):
        window, history = Window(length), []
        for _ in range(400):
            history.append(int(random.integers(0, 120)))
            window.extend(history[-1:])
            ids, counts = window.counted()
            assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == collections.Counter(history[-length:])


@pytest.mark.parametrize("size", [1, 2, 63, 64, 4096, 151_936])
@pytest.mark.parametrize("k", [0, 1, 2, 40, 5000])
def test_highest(size: int, k: int) -> None:
    logits = np.round(logits_of(size + k, size), 2)  # with ties
    ids, values = highest(logits, k)
    assert ids.tolist() == np.argsort(-logits, kind="stable")[:k].tolist()
    assert (values == logits[ids]).all()


def test_minus_infinity_is_never_drawn() -> None:
    logits = np.full(300, -np.inf, np.float32)
    logits[[5, 250]] = 0, 0.1
    for options in FILTERS.values():
        made = sampler(options)
        assert {made.sample(logits) for _ in range(50)} <= {5, 250}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("options", FILTERS.values(), ids=FILTERS)
def test_what_is_no_number_is_noticed(options: Sampling, bad: float) -> None:
    logits = logits_of(4)
    logits[123] = bad
    with pytest.raises(NotANumber):
        sampler(options, range(5)).sample(logits)
    with pytest.raises(NotANumber):
        sampler(options).sample(np.full(10, -np.inf, np.float32))


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300])
def test_nearly_no_temperature(temperature: float) -> None:
    logits = logits_of(5)
    assert sampler(Sampling(temperature=temperature)).sample(logits) == logits.argmax()


@pytest.mark.parametrize(
    "options",
    [
        Sampling(repeat_penalty=0.0),
        Sampling(repeat_penalty=-1.0),
        Sampling(repeat_penalty=math.inf),
        Sampling(frequency_penalty=math.nan),
        Sampling(presence_penalty=math.inf),
    ],
)
def test_impossible_penalties(options: Sampling) -> None:
    with pytest.raises(SamplingError, match="must be finite"):
        Sampler(options, CTX)


def test_log_probabilities_are_those_of_the_model() -> None:
    logits = logits_of(6)
    expected = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    value, best = log_probabilities(logits, 17, 3)
    assert value == pytest.approx(expected[17], abs=1e-5)
    assert [token for token, _ in best] == np.argsort(-logits)[:3].tolist()
    assert [chance for _, chance in best] == pytest.approx(sorted(expected, reverse=True)[:3], abs=1e-5)
    assert log_probabilities(logits, 17, 0)[1] == []


def test_log_probabilities_are_finite() -> None:
    logits = np.array([0.0, -np.inf], np.float32)
    value, best = log_probabilities(logits, 1, 2)
    assert math.isfinite(value)
    assert math.isfinite(best[1][1])
