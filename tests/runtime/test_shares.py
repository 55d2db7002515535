"""The share of experts that is read over PCIe: chosen by turns, the same on a machine whose speed changes by the second."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.execute import shares

SHARES = (0.125, 0.25, 0.375)


class Machine:
    """Tokens that take 1/gain of what they take without a share, beside what others do to the machine at that moment."""

    def __init__(self, gains: dict[float, float], noise: float, seed: int = 0) -> None:
        self._gains, self._noise, self._rng = {0.0: 1.0} | gains, noise, np.random.default_rng(seed)
        self.asked: list[float] = []

    def seconds(self, share: float) -> float:
        self.asked.append(share)
        return float(np.exp(self._rng.normal(0, self._noise))) / self._gains[share]


def test_the_gain_is_that_of_the_machine() -> None:
    machine = Machine({0.125: 1.1, 0.25: 1.4, 0.375: 1.2}, 0.0)
    found = shares.gains(SHARES, machine.seconds)
    assert found == pytest.approx({0.125: 1.1, 0.25: 1.4, 0.375: 1.2})
    assert shares.best(found) == 0.25


@pytest.mark.parametrize("best", [0.8, 1.0, 1.5])
def test_a_clear_case_takes_few_turns(best: float) -> None:
    machine = Machine({0.125: best, 0.25: best - 0.05, 0.375: best - 0.3}, 0.01)
    found = shares.gains(SHARES, machine.seconds)
    assert shares.best(found) == (0.125 if best > shares.GAIN else 0.0)
    assert len(machine.asked) == shares.LEAST_TURNS * (1 + len(SHARES))


@pytest.mark.parametrize(("gain", "expected"), [(1.12, 0.0), (1.18, 0.25)])
def test_a_near_case_is_decided_alike_at_each_load(gain: float, expected: float) -> None:
    """Where a token takes 2 % more or less from one to the next."""
    machines = [Machine({0.125: 1.05, 0.25: gain, 0.375: 0.9}, 0.02, seed) for seed in range(200)]
    chosen = [shares.best(shares.gains(SHARES, machine.seconds)) for machine in machines]
    assert sum(share == expected for share in chosen) > 180


def test_only_shares_that_may_be_best_have_more_turns() -> None:
    machine = Machine({0.125: 1.14, 0.25: 1.16, 0.375: 0.7}, 0.001)
    shares.gains(SHARES, machine.seconds)
    assert machine.asked.count(0.375) == shares.LEAST_TURNS
    assert machine.asked.count(0.125) == machine.asked.count(0.25) == machine.asked.count(0.0) == shares.MOST_TURNS


def test_without_shares_nothing_is_chosen() -> None:
    assert shares.best(shares.gains((), Machine({}, 0.0).seconds)) == 0.0
