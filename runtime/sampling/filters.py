"""Samplers that leave some of the candidates: top_n_sigma, typical_p, top_p, min_p, XTC."""

from __future__ import annotations

import math

import numpy as np

from runtime.core import FloatArray
from runtime.sampling.candidates import Candidates, highest

_NUCLEUS = (256, 4096)  # candidates that top_p sorts before it sorts all


def sigma_bound(logits: FloatArray, n: float) -> np.float32:
    """The logit `n` standard deviations below the best. Impossible tokens do not count."""
    if np.isneginf(logits.min()):
        logits = logits[logits > -np.inf]
    apart = logits - logits.mean(dtype=np.float64).astype(np.float32)
    deviation = math.sqrt(float(np.dot(apart, apart)) / len(apart))
    return np.float32(logits.max() - np.float32(n * deviation))


def above(candidates: Candidates, bound: np.float32) -> Candidates:
    """Those below the bound stay as impossible ones, as in llama.cpp."""
    return candidates._replace(logits=np.where(candidates.logits < bound, np.float32(-np.inf), candidates.logits))


def typical(candidates: Candidates, p: float) -> Candidates:
    """Those whose surprise is closest to the expected one, until their probabilities exceed `p`."""
    candidates = candidates.sorted()
    probabilities = candidates.probabilities()
    possible = int(np.count_nonzero(probabilities))
    probabilities = probabilities[:possible]
    surprise = -np.log(probabilities)
    closest = np.argsort(np.abs(surprise - (probabilities * surprise).sum()), kind="stable")
    count = int(np.cumsum(probabilities[closest]).searchsorted(p, side="right")) + 1
    return candidates.at(closest[:count])._replace(falling=False)


def nucleus(candidates: Candidates, p: float) -> Candidates:
    """The likeliest ones, until their probabilities reach `p`."""
    ids, logits, falling = candidates
    if falling:
        sums = np.exp(logits - logits[0]).cumsum(dtype=np.float64)
        target = p * sums[-1]
    else:
        top = logits.max()
        target = p * np.exp(logits - top).sum(dtype=np.float64)
        for length in (*_NUCLEUS, len(ids)):  # nearly always the first will do
            order, head = highest(logits, min(length, len(ids)))
            sums = np.cumsum(np.exp(head - top), dtype=np.float64)
            if sums[-1] >= target:
                break
        ids, logits = ids[order], head
    count = int(sums.searchsorted(target)) + 1
    return Candidates(ids[:count], logits[:count], True)


def at_least(candidates: Candidates, p: float) -> Candidates:
    """Those at least `p` times as likely as the likeliest."""
    logits = candidates.logits
    top = logits.max()
    kept = logits >= top + np.float32(math.log(p))
    return candidates.at(kept if kept.any() else logits == top)


def without_top(candidates: Candidates, threshold: float) -> Candidates:
    """XTC: of those with a probability of at least `threshold` only the least likely stays."""
    candidates = candidates.sorted()
    likely = int(np.count_nonzero(candidates.probabilities() >= threshold))
    return candidates.at(slice(max(likely - 1, 0), None))
