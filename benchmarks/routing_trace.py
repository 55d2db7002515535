"""Choices of experts as real models make them, for measuring what caches of experts gain: random weights choose evenly.

Each layer has its own order of popularity, by Zipf's law; a part of a token's experts is that of the token before.
`python benchmarks/routing_trace.py` prints the hit rates that the policy of runtime/execute/hotness.py, plain LRU filled on the
second touch, and the best fixed choice reach on such traces.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from runtime.execute.hotness import Budget, Hotness

Ids = npt.NDArray[np.int64]
KEPT = 1e6  # added to the scores of experts that a text keeps


class Trace:
    """Texts side by side. `exponent`: of Zipf's law, 0 for an even choice; `overlap`: the part kept from token to token."""

    def __init__(self, layers: int, experts: int, used: int, *, exponent: float, overlap: float, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._popularity = -exponent * np.log(1 + self._rng.permuted(np.arange(experts)[None].repeat(layers, 0), axis=1))
        self._used, self._overlap = used, overlap
        self._before: Ids | None = None

    def step(self, rows: int) -> Ids:
        """Distinct experts of each row's next token, (layers, rows, used)."""
        layers, experts = self._popularity.shape
        scores = self._popularity[:, None] + self._rng.gumbel(size=(layers, rows, experts))
        if self._before is not None and self._before.shape[1] == rows:
            kept = np.where(self._rng.random(self._before.shape) < self._overlap, KEPT, 0.0)
            before = np.take_along_axis(scores, self._before, 2)
            np.put_along_axis(scores, self._before, before + kept, 2)
        self._before = np.argpartition(-scores, self._used, 2)[..., : self._used]
        return self._before


class Lru:
    """Least recently used out, filled on the second touch: what `Hotness` is compared with."""

    def __init__(self, layers: int, experts: int) -> None:
        self._last, self._before, self._now = np.full((layers, experts), -1.0), np.full((layers, experts), -np.inf), 0

    def see(self, counts: npt.NDArray[np.int64], rows: int) -> None:
        self._now += rows
        touched = counts > 0
        self._before[touched] = self._last[touched]
        self._last[touched] = self._now

    def moves(self, resident: npt.NDArray[np.bool_], most: int) -> list[tuple[int, int, int]]:
        absent, present = np.where(resident, -np.inf, self._before), np.where(resident, self._last, np.inf)
        expert, victim, layers = absent.argmax(1), present.argmin(1), np.arange(len(resident))
        gain = absent[layers, expert] - present[layers, victim]
        return [(i, int(expert[i]), int(victim[i])) for i in np.argsort(-gain).tolist() if gain[i] > 0][:most]


def hit_rate(
    policy: Hotness | Lru, trace: Trace, shape: tuple[int, int, int], slots: int, steps: int
) -> tuple[float, float, float]:
    """Of the first hundred tokens, of the second half, and moves a layer and token."""
    layers, experts, _ = shape
    resident, hits, moved = np.arange(experts)[None].repeat(layers, 0) < slots, [], 0
    counts, budget, absent = np.zeros((layers, experts), np.int64), Budget(), layers * (experts - slots)
    for i in range(steps):
        ids = trace.step(1)[:, 0]
        hits.append(np.take_along_axis(resident, ids, 1).mean())
        np.put_along_axis(counts, ids, np.take_along_axis(counts, ids, 1) + 1, 1)
        if i % 4 == 3:
            policy.see(counts, 4)
            budget.see(int(counts[~resident].sum()), absent)
            moves = policy.moves(resident, budget.most(absent))
            for layer, expert, victim in moves:
                resident[layer, [expert, victim]] = True, False
            budget.spend(len(moves))
            moved += len(moves)
            counts[:] = 0
    return [float(np.mean(hits[:100])), float(np.mean(hits[steps // 2 :])), moved / steps / layers]


def fixed(trace: Trace, experts: int, slots: int, steps: int) -> float:
    """The hit rate of each layer's most popular experts, chosen in hindsight."""
    ids = np.stack([trace.step(1)[:, 0] for _ in range(steps)], 1)  # (layers, steps, used)
    uses = np.sort([np.bincount(line, minlength=experts) for line in ids.reshape(len(ids), -1)], 1)
    return float(uses[:, -slots:].sum() / uses.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--used", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1200)
    a = parser.parse_args()
    print("exponent | slots | policy | hit rate, first 100 tokens | second half | moves a layer and token")
    for exponent in (1.0, 0.0):
        for slots in (a.experts // 8, a.experts // 2):

            def trace(exponent: float = exponent) -> Trace:
                return Trace(a.layers, a.experts, a.used, exponent=exponent, overlap=0.3 if exponent else 0.0)

            for policy in (Hotness(a.layers, a.experts), Lru(a.layers, a.experts)):
                early, late, moved = hit_rate(policy, trace(), (a.layers, a.experts, a.used), slots, a.steps)
                print(f"{exponent} | {slots} | {type(policy).__name__} | {early:.3f} | {late:.3f} | {moved:.3f}")
            print(f"{exponent} | {slots} | fixed, in hindsight | | {fixed(trace(), a.experts, slots, a.steps):.3f} | 0")


if __name__ == "__main__":
    main()
