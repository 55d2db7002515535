"""The policy of the expert cache."""

from __future__ import annotations

import numpy as np
import pytest
import routing_trace

from runtime.execute.hotness import ABSENT, HALF_LIFE, READ, Budget, Hotness, Move


def counts(experts: int, *used: int) -> np.ndarray:
    return np.bincount(used, minlength=experts)[None]


def first(experts: int, n: int) -> np.ndarray:
    return np.arange(experts)[None] < n


def test_second_touch() -> None:
    hotness = Hotness(1, 4)
    hotness.see(counts(4, 3), 1)
    assert hotness.moves(first(4, 2), 8) == []
    hotness.see(counts(4, 3), 1)
    assert hotness.moves(first(4, 2), 8) == [Move(0, 3, 0)]


def test_the_coldest_goes() -> None:
    hotness = Hotness(1, 4)
    hotness.see(counts(4, 0, 0, 0, 1, 2, 2, 2, 2), 1)
    assert hotness.moves(first(4, 2), 8) == [Move(0, 2, 1)]


def test_equally_hot_experts_stay() -> None:
    hotness = Hotness(1, 4)
    hotness.see(counts(4, *[0, 1, 2, 3] * 10), 1)
    assert hotness.moves(first(4, 2), 8) == []


def test_old_uses_fade() -> None:
    hotness = Hotness(1, 4)
    hotness.see(counts(4, *[0] * 40), 1)
    hotness.see(counts(4, *[1] * 40), 10 * HALF_LIFE)
    assert hotness.moves(first(4, 1), 8) == [Move(0, 1, 0)]


def test_most_gain_first_and_no_more_than_asked() -> None:
    hotness = Hotness(2, 6)
    hotness.see(np.array([[0, 0, 0, 9, 8, 0], [0, 0, 0, 0, 0, 20]]), 1)
    resident = np.arange(6)[None].repeat(2, 0) < 3
    assert hotness.moves(resident, 2) == [Move(1, 5, 0), Move(0, 3, 0)]
    assert len(hotness.moves(resident, 8)) == 3


def test_layers_without_slots_or_without_absent_experts() -> None:
    hotness = Hotness(2, 3)
    hotness.see(np.full((2, 3), 9), 1)
    assert hotness.moves(np.array([[False] * 3, [True] * 3]), 8) == []


def test_a_long_prompt_counts_as_a_short_one_of_its_kind() -> None:
    short, long = Hotness(1, 2), Hotness(1, 2)
    for _ in range(4000):
        short.see(np.array([[3, 1]]), 1)
    long.see(np.array([[12000, 4000]]), 4000)
    np.testing.assert_allclose(short._score, long._score, rtol=1e-6)


@pytest.mark.parametrize(("exponent", "least", "most"), [(1.0, 0.75, 1.0), (0.0, 0.45, 0.55)])
def test_hit_rate_on_a_trace(exponent: float, least: float, most: float) -> None:
    """Half of the experts have a place; with skew the cache finds those that matter, without it nothing is lost."""
    layers, experts, used = 4, 32, 4
    trace = routing_trace.Trace(layers, experts, used, exponent=exponent, overlap=0.3, seed=1)
    hotness, resident, hits = Hotness(layers, experts), np.arange(experts)[None].repeat(layers, 0) < experts // 2, []
    for _ in range(600):
        ids = trace.step(1)[:, 0]
        hits.append(np.take_along_axis(resident, ids, 1).mean())
        hotness.see(np.stack([np.bincount(line, minlength=experts) for line in ids]), 1)
        for layer, expert, victim in hotness.moves(resident, 2):
            resident[layer, [expert, victim]] = True, False
    assert least <= np.mean(hits[300:]) <= most
    assert (resident.sum(1) == experts // 2).all()


def test_as_many_may_move_as_were_missed_and_not_all_at_a_time() -> None:
    budget, absent = Budget(), 10 * ABSENT
    assert budget.most(absent) == 0
    budget.see(3 * READ + 1, absent)
    assert budget.most(absent) == 3
    budget.spend(2)
    assert budget.most(absent) == 1
    budget.see(10**6, absent)  # a prompt
    for _ in range(ABSENT):
        assert budget.most(absent) == 10
        budget.spend(10)
    assert budget.most(absent) == 0


def test_few_absent_experts_move_one_by_one() -> None:
    budget = Budget()
    budget.see(10**6, 3)
    assert budget.most(3) == 1


def test_another_text_is_caught_up_with_from_its_prompt_on() -> None:
    """Other experts become popular, with a prompt of 256 tokens: 16 tokens later most hits are back, and then moves end."""
    layers, experts, used, slots = 4, 64, 4, 24
    absent = layers * (experts - slots)
    hotness, budget, resident = Hotness(layers, experts), Budget(), np.arange(experts)[None].repeat(layers, 0) < slots
    hits, moved = [], []
    for text in range(2):
        trace = routing_trace.Trace(layers, experts, used, exponent=1.5, overlap=0.3, seed=text)
        for step in range(301):
            ids = trace.step(1 if step else 256)  # (layers, rows, used)
            hits.append(np.take_along_axis(resident, ids[:, 0], 1).mean())
            uses = np.stack([np.bincount(line.ravel(), minlength=experts) for line in ids])
            hotness.see(uses, ids.shape[1])
            budget.see(int(uses[~resident].sum()), absent)
            moves = hotness.moves(resident, budget.most(absent) if step % 4 == 0 else 0)
            for layer, expert, victim in moves:
                resident[layer, [expert, victim]] = True, False
            budget.spend(len(moves))
            moved.append(len(moves))
    before, lost, after = np.mean(hits[100:301]), hits[301], np.mean(hits[318:366])
    assert lost < before - 0.3
    assert after > before - 0.05
    assert sum(moved[318:366]) < sum(moved[301:318]) < slots * layers
