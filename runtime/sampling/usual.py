"""The chain of samplers that most requests have: top_k, top_p, min_p, a fixed temperature, and no other. Compiled."""

from __future__ import annotations

import math

import numpy as np

from runtime.core import FloatArray
from runtime.frames import Sampling
from runtime.sampling.masks import Mask

COLDEST = 1e-5  # temperatures below cannot be told from it, but would overflow

_MOST = 128  # candidates up to which the compiled loops are the faster ones


def is_usual(options: Sampling) -> bool:
    """Whether these options touch nothing else, once biases and penalties are in the logits."""
    others = options.typical_p < 1 or options.top_n_sigma > 0 or options.xtc_probability > 0 or options.dynatemp_range > 0
    return not (options.mirostat or others) and options.temperature > 0 and 0 < options.top_k <= _MOST


class Usual:
    """Draws as the chain in NumPy would: the same token for the same number. One answer's; not for several threads."""

    def __init__(self, options: Sampling, random: np.random.Generator) -> None:
        from runtime.kernels import draws  # numba comes with the first draw and not with this module

        self._head, self._draw = draws.head, draws.draw
        self._random = random.random
        self._top_k, self._top_p = options.top_k, options.top_p
        self._temperature = float(max(options.temperature, COLDEST))
        self._floor = math.log(options.min_p) if options.min_p > 0 else -math.inf
        self._unmasked = np.empty(0, np.uint8)
        self._ids = np.zeros(options.top_k, np.int64)
        self._steps = np.zeros((3, options.top_k), np.float32)
        self._weights = np.zeros_like(self._steps)

    def can(self, logits: FloatArray, mask: Mask | None) -> bool:
        """Whether it draws from these: it does not where top_k would leave all, nor where nothing might bring them into order."""
        return len(logits) > self._top_k and (mask is None or self._top_p < 1)

    def choose(self, logits: FloatArray, mask: Mask | None) -> int:
        """A token, from those of the mask; -1 if there is none, or none above minus infinity, or one has no number."""
        masked = self._unmasked if mask is None else mask
        counts = self._head(logits, masked, self._ids, self._steps, self._temperature, self._floor)
        if not counts:
            return -1
        np.exp(self._steps, self._weights)
        token: int = self._draw(self._ids, self._weights, counts, self._top_p, self._random())
        return token
