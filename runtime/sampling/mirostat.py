"""Mirostat 1 and 2: as many candidates as keep the surprise of the text near a target."""

from __future__ import annotations

import math

import numpy as np

from runtime.sampling.candidates import Candidates, highest

_HEAD = 100  # likeliest tokens from which Mirostat 1 estimates how fast probabilities fall


class Mirostat:
    """The state of one answer: `mu`, the surprise in bits that a token may have at most."""

    def __init__(self, version: int, tau: float, eta: float, n_vocab: int) -> None:
        self._version = version
        self._tau = tau
        self._eta = eta
        self._n_vocab = n_vocab
        self.mu = 2.0 * tau

    def truncate(self, candidates: Candidates) -> Candidates:
        """The candidates to draw from; at least the best."""
        return self._first(candidates) if self._version == 1 else self._second(candidates)

    def observe(self, probability: float) -> None:
        """Take notice of the drawn token's share among the candidates that were left."""
        surprise = -np.log2(np.float64(probability))
        self.mu = float(np.nan_to_num(self.mu - self._eta * (surprise - self._tau)))

    def _first(self, candidates: Candidates) -> Candidates:
        """Zipf's exponent is estimated from the head, and from it how many tokens have a surprise of less than mu."""
        places, logits = highest(candidates.logits, min(_HEAD, len(candidates.logits)))
        logits = logits[logits > -np.inf].astype(np.float64)
        if len(logits) < 2:
            return candidates.at(places[:1])
        ranks = np.arange(1.0, len(logits))
        steps = np.log((ranks + 1) / ranks)
        with np.errstate(all="ignore"):
            exponent = (steps * -np.diff(logits)).sum() / (steps * steps).sum()
            excess = exponent - 1
            share = 1 - np.power(np.float64(self._n_vocab), -excess)
            k = np.power(excess * np.exp2(np.float64(self.mu)) / share, 1 / exponent)
        count = int(np.clip(np.nan_to_num(k, nan=1.0), 1, len(candidates.ids)))
        places, head = highest(candidates.logits, count)
        return Candidates(candidates.ids[places], head, True)

    def _second(self, candidates: Candidates) -> Candidates:
        """Those whose surprise is at most mu, told by their logits: a logarithm for each would cost more than all the rest."""
        logits = candidates.logits
        top = float(logits.max())
        whole = top + math.log(float(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))
        kept = logits >= min(whole - self.mu * math.log(2), top)
        return candidates.at(kept)
