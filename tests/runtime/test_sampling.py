"""runtime.sampling against its plain twin."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable

import numpy as np
import pytest
from naive_sampling import distribution, filtered
from toy_model import N_VOCAB, make_tokenizer

from runtime.core import FloatArray
from runtime.frames import Sampling
from runtime.sampling import Breakers, NotANumber, Sampler, SamplingError, log_probabilities, masks
from runtime.sampling.candidates import Candidates, highest
from runtime.sampling.mirostat import Mirostat
from runtime.sampling.penalties import Window

CTX = 1000
TOKENIZER = make_tokenizer()  # its first tokens are bytes
BREAKERS = Breakers(TOKENIZER)


def logits_of(seed: int, size: int = N_VOCAB, spread: float = 2.5) -> FloatArray:
    return (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)


def sampler(options: Sampling, history: Iterable[int] = ()) -> Sampler:
    made = Sampler(options, CTX, BREAKERS)
    made.accept(list(history))
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
    "biases": Sampling(temperature=1.0, logit_bias=[(3, 4.0), (7, -2.0), (3, 1.0), (9, -1e30)]),
    "greedy, biases": Sampling(temperature=0.0, logit_bias=[(3, 100.0)]),
    "top_n_sigma": Sampling(temperature=1.0, top_k=0, top_p=1.0, top_n_sigma=1.5),
    "top_n_sigma, top_k": Sampling(temperature=1.0, top_k=9, top_p=0.8, top_n_sigma=2.0),
    "xtc": Sampling(temperature=1.0, xtc_probability=0.4, xtc_threshold=0.05),
    "xtc, always": Sampling(temperature=1.0, top_k=0, top_p=1.0, xtc_probability=1.0, xtc_threshold=0.02),
    "xtc, never": Sampling(temperature=1.0, xtc_probability=1.0, xtc_threshold=0.6),
    "greedy, xtc": Sampling(temperature=0.0, xtc_probability=0.5, xtc_threshold=0.01),
    "dynatemp": Sampling(temperature=1.0, dynatemp_range=0.8, dynatemp_exponent=1.5),
    "dynatemp from nothing": Sampling(temperature=0.0, dynatemp_range=0.9),
    "dry": Sampling(temperature=1.0, dry_multiplier=1.0, dry_allowed_length=1, dry_penalty_last_n=500),
    "greedy, dry": Sampling(temperature=0.0, dry_multiplier=5.0, dry_allowed_length=1, dry_base=2.0),
    "rewards": Sampling(temperature=1.0, repeat_penalty=0.8, presence_penalty=-1.0, frequency_penalty=-0.1),
}


@pytest.mark.parametrize("options", FILTERS.values(), ids=FILTERS)
def test_distribution(options: Sampling) -> None:
    """Draws fall on what the twin allows, as often as it says."""
    logits = logits_of(1)
    history = [int(token) for token in np.random.default_rng(2).integers(0, 256, 200)] + list(np.argsort(-logits)[:10])
    expected = distribution(logits, options, history, {token for token in range(256) if chr(token) in '\n:"*'})
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
        top_n_sigma=float(random.choice([-1.0, 1.5])),
    )
    logits = logits_of(seed, size=int(random.choice([5, 70, 5000])), spread=float(random.choice([0.5, 3.0])))
    ids, values, _ = sampler(options).candidates(logits, drops_top=False)
    assert sorted(ids) == sorted(token for token, _ in filtered(logits.tolist(), options))
    assert ((values == logits[ids]) | np.isneginf(values)).all()


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


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [2.0, 4.0])
def test_mirostat_keeps_the_surprise_near_its_target(version: int, tau: float) -> None:
    random, size = np.random.default_rng(1), 2000
    state, surprises = Mirostat(version, tau, 0.2, size), []
    for step in range(300):
        chances = state.truncate(Candidates(np.arange(size), logits_of(step, size, 1.5))).probabilities().astype(float)
        chance = float(random.choice(chances, p=chances / chances.sum()))
        state.observe(chance)
        surprises.append(-math.log2(chance))
    assert np.mean(surprises[100:]) == pytest.approx(tau, abs=0.3)


def test_mirostat_without_a_temperature_takes_the_best() -> None:
    made = sampler(Sampling(temperature=0.0, mirostat=2, repeat_penalty=5.0), range(262))
    assert made.sample(logits_of(1)) == logits_of(1).argmax()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("eta", [1e30, -1e30, 0.0])
def test_mirostat_survives_absurd_rates(version: int, eta: float) -> None:
    made = sampler(Sampling(temperature=1.0, mirostat=version, mirostat_tau=-5.0, mirostat_eta=eta))
    for size in (1, 2, 262):
        logits = np.full(size, -np.inf, np.float32)
        logits[-1] = 0
        assert [made.sample(logits) for _ in range(5)] == [size - 1] * 5


def test_breakers_of_several_tokens() -> None:
    breaks = BREAKERS.breaks(["hell", "", "xy"])
    assert {TOKENIZER.decode([token]) for token in np.flatnonzero(breaks.whole)} == {"hell"}
    ways = {TOKENIZER.decode([head]) + TOKENIZER.decode(tail) for head, tails in breaks.tails.items() for tail in tails}
    assert ways == {"hell", "xy"}


def test_a_grammar_is_obeyed_by_every_sampler() -> None:
    mask = masks.empty(N_VOCAB)
    masks.permit(mask, [5, 50, 200])
    for options in (*FILTERS.values(), Sampling(mirostat=1), Sampling(mirostat=2), Sampling(temperature=0)):
        made = sampler(options, range(30))
        assert {made.choose(made.changed(logits_of(step)), mask) for step in range(30)} <= {5, 50, 200}


@pytest.mark.parametrize(
    ("options", "depends_on"),
    [
        (Sampling(), 40),
        (Sampling(temperature=0), 1),
        (Sampling(top_k=7, top_p=0.5, min_p=0.1, typical_p=0.9), 7),
        (Sampling(top_k=7, xtc_probability=0.5, dynatemp_range=0.3), 7),
        (Sampling(top_k=0), 0),
        (Sampling(temperature=0, repeat_penalty=1.1), 0),
        (Sampling(logit_bias=[(3, 1.0)]), 0),
        (Sampling(top_n_sigma=1.0), 0),
        (Sampling(mirostat=2), 0),
        (Sampling(dry_multiplier=0.8), 0),
    ],
)
def test_how_many_logits_decide(options: Sampling, depends_on: int) -> None:
    """And as many chosen beforehand, with one more, give the same tokens."""
    assert sampler(options).depends_on == depends_on
    if depends_on:
        seeded = dataclasses.replace(options, seed=5)
        whole, short = sampler(seeded), sampler(seeded)
        for seed in range(40):
            logits = np.round(logits_of(seed), 1)
            ids, best = highest(logits, depends_on + 1)
            assert ids[short.sample(best)] == whole.sample(logits)
