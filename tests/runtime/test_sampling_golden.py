"""runtime.sampling against llama.cpp's own samplers: tests/golden/make_sampling.py."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.core import FloatArray
from runtime.frames import Sampling
from runtime.gguf_file import open_gguf
from runtime.sampling import Breakers, Sampler
from runtime.sampling.candidates import Candidates
from runtime.sampling.dry import Dry
from runtime.sampling.mirostat import Mirostat
from runtime.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/sampling.json").read_text())
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
NEVER = -1e30


def logits_of(seed: int, size: int, spread: float) -> FloatArray:
    return np.round(np.random.default_rng(seed).standard_normal(size) * spread, 4).astype(np.float32)


def left(options: Sampling, logits: FloatArray) -> dict[int, float]:
    """The candidates and their logits, divided by the temperature."""
    sampler = Sampler(options, 1000)
    candidates = sampler.candidates(logits, drops_top=options.xtc_probability == 1)
    temperature = sampler.temperature(candidates)
    if temperature <= 0:
        best = candidates.logits == candidates.logits.max()
        candidates, temperature = candidates._replace(logits=np.where(best, candidates.logits, -np.inf)), 1.0
    return dict(zip(candidates.ids.tolist(), (candidates.logits / temperature).tolist(), strict=True))


@pytest.mark.parametrize("case", GOLDEN["plain"] + GOLDEN["chains"])
def test_candidates(case: dict[str, Any]) -> None:
    """Which of the impossible ones stay is left to chance, but not how many: entropies are compared with their number."""
    found = left(Sampling(**OFF | case["options"]), logits_of(*case["logits"]))
    expected = dict(case["left"])
    assert len(found) == len(expected)
    found = {token: logit for token, logit in found.items() if logit > NEVER}
    expected = {token: logit for token, logit in expected.items() if logit > NEVER}
    if len(found) == 1:  # llama.cpp then leaves the logit as it is
        assert [*found] == [*expected]
    else:
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


@functools.cache
def breakers() -> Breakers:
    with open_gguf(str(ROOT / "ollama_compat/data/demo-moe-Q4_K_M.gguf")) as file:
        return Breakers(Tokenizer.from_gguf(file.metadata))


@pytest.mark.parametrize("case", GOLDEN["dry"])
def test_dry(case: dict[str, Any]) -> None:
    options = Sampling(**case["options"])
    breaks = breakers().breaks(options.dry_sequence_breakers)
    dry, logits = Dry(options, breaks), np.zeros(len(breaks.whole), np.float32)
    dry.accept(case["history"])
    dry.penalise(logits)
    found = {int(token): float(logits[token]) for token in np.flatnonzero(logits)}
    assert found == pytest.approx(dict(case["left"]), rel=1e-4)


@pytest.mark.parametrize("case", GOLDEN["mirostat"])
def test_mirostat(case: dict[str, Any]) -> None:
    """As many candidates at each step, when the same ones are drawn."""
    seed, size, spread = case["logits"]
    options = case["options"]
    state = Mirostat(options["mirostat"], options["mirostat_tau"], options["mirostat_eta"], size)
    for step, (count, drawn) in enumerate(case["steps"]):
        kept = state.truncate(Candidates(np.arange(size), logits_of(seed + step, size, spread)))
        assert len(kept.ids) == count
        state.observe(float(kept.probabilities()[kept.ids == drawn][0]))
