"""runtime.sampling.masks and runtime.kernels.masked against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.kernels import masked
from runtime.sampling import masks


@pytest.mark.parametrize("size", [1, 8, 31, 32, 33, 500])
@pytest.mark.parametrize("beside", [-5, 0, 5])  # logits that a model has more than its tokenizer tokens
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_the_permitted_and_the_best_of_them(size: int, beside: int, share: float) -> None:
    random = np.random.Generator(np.random.SFC64(size))
    logits = random.integers(-9, 9, max(size + beside, 0)).astype(np.float32)  # many are equal
    logits[random.random(len(logits)) < 0.2] = -np.inf
    chosen = random.random(size) < share
    mask = masks.empty(size)
    masks.permit(mask, np.flatnonzero(chosen).tolist())
    assert [masks.permits(mask, token) for token in range(size)] == chosen.tolist()
    assert not masks.permits(mask, size + 40)
    ids = np.flatnonzero(chosen[: len(logits)])
    found, values = masked.permitted(logits, mask)
    assert (found.tolist(), values.tolist()) == (ids.tolist(), logits[ids].tolist())
    possible = ids[logits[ids] > -np.inf]
    assert masked.best(logits, mask) == (possible[logits[possible].argmax()] if len(possible) else -1)
