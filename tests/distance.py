"""How far log probabilities are from recorded ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

CLEAR = 0.2  # nats between the two best: the best token is not a matter of rounding


def to_golden(golden: Mapping[str, np.ndarray], logprobs: np.ndarray) -> tuple[float, float]:
    """Mean KL divergence from the golden, and the share of clear places where the best token is the same.

    KL over the golden's 16 best tokens and all others as one: a lower bound of the whole that misses almost nothing.
    """
    theirs = golden["logprobs"].astype(np.float64)
    ours = np.take_along_axis(logprobs, golden["ids"].astype(np.int64), 1)
    rest, our_rest = 1 - np.exp(theirs).sum(1), 1 - np.exp(ours).sum(1)
    kl = (np.exp(theirs) * (theirs - ours)).sum(1) + rest * np.log(rest / our_rest)
    clear = theirs[:, 0] - theirs[:, 1] > CLEAR
    return float(kl.mean()), float((logprobs.argmax(1) == golden["ids"][:, 0])[clear].mean())
