"""Which part of the absent experts the card reads over PCIe by itself: shares take turns until it is clear which is best."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

GAIN = 1.15  # below it the card's reads are left to others: a home PC's memory is one pipe for both sides
LEAST_TURNS, MOST_TURNS = 3, 9
CLEAR = 0.07  # a gain that is further from GAIN than this needs no more turns
NEAR = 0.1  # of the best gain; a share that is further from it is out


def gains(shares: Sequence[float], seconds: Callable[[float], float]) -> Mapping[float, float]:
    """How much faster a token is with each share than with none: medians over turns in which each stands beside none in the same
    moment, since who else uses the memory changes by the second. `seconds`: measures a token with that share.

    Where the best is near GAIN, the shares that may be it have more turns: the same machine then decides the same at each load.
    """
    found: dict[float, list[float]] = {share: [] for share in shares}
    trying = list(shares)
    medians: dict[float, float] = {}
    for turn in range(1, MOST_TURNS + 1):
        alone = seconds(0.0)
        for share in trying:
            found[share].append(alone / seconds(share))
        medians = {share: statistics.median(ratios) for share, ratios in found.items()}
        best = max(medians.values(), default=0.0)
        if turn >= LEAST_TURNS:
            if abs(best - GAIN) > CLEAR:
                break
            trying = [share for share in trying if medians[share] > best - NEAR]
    return medians


def best(found: Mapping[float, float]) -> float:
    """The share with the largest of these gains, or none where that is too little."""
    share = max(found, key=lambda share: found[share], default=0.0)
    return share if found.get(share, 0.0) >= GAIN else 0.0
