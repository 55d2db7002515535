"""runtime.sampling.masks and runtime.kernels.masked against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.frames import Sampling
from runtime.kernels import masked
from runtime.sampling import NotANumber, Sampler, masks


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
    values, count = masked.without_refused(logits, mask)
    assert count == len(values) == 0 or count == len(ids)
    assert count or 7 * len(ids) < len(logits) + 64
    if count:
        assert values.tolist() == np.where(np.isin(np.arange(len(logits)), ids), logits, -np.inf).tolist()
    possible = ids[logits[ids] > -np.inf]
    best = masked.MANY if count else possible[logits[possible].argmax()] if len(possible) else -1
    assert masked.best(logits, mask) == best
    if len(possible):
        assert Sampler(Sampling(temperature=0), 64).choose(logits, mask) == possible[logits[possible].argmax()]
    else:
        with pytest.raises(NotANumber):
            Sampler(Sampling(temperature=0), 64).choose(logits, mask)


OPTIONS = [
    *({}, {"top_k": 0}, {"top_k": 3, "min_p": 0.2}, {"top_n_sigma": 1.5}),
    *({"xtc_probability": 0.5}, {"typical_p": 0.6}, {"dynatemp_range": 0.5}),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("share", [0.01, 0.2, 0.95])
def test_a_draw_by_a_mask_is_one_among_the_permitted(options: dict[str, float], share: float) -> None:
    random = np.random.Generator(np.random.SFC64(7))
    by_mask, among = (Sampler(Sampling(seed=5, **options), 64) for _ in range(2))  # type: ignore[arg-type]
    for _ in range(60):
        logits = (4 * random.standard_normal(700)).astype(np.float32)
        logits[random.random(700) < 0.1] = -np.inf
        ids = np.union1d(np.flatnonzero(random.random(700) < share), [int(logits.argmax())])
        mask = masks.empty(700)
        masks.permit(mask, ids.tolist())
        assert by_mask.choose(logits, mask) == ids[among.choose(logits[ids])]


def test_what_is_no_number_counts_where_it_is_permitted() -> None:
    logits = np.zeros(100, np.float32)
    logits[3] = np.nan
    mask = masks.empty(100)
    masks.permit(mask, range(4, 100))
    assert Sampler(Sampling(seed=1), 64).choose(logits, mask) > 3
    masks.permit(mask, [3])
    with pytest.raises(NotANumber):
        Sampler(Sampling(seed=1), 64).choose(logits, mask)
