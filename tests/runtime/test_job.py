"""The job `bench`, from both sides of its pipes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from ollama_compat import job_steps
from ollama_compat.errors import InternalError
from runtime.job import JOBS

NOTHING = {"prompts": [8], "gens": [4], "depths": [0], "batches": [1], "repetitions": 2, "threads": [1]}


def run(job: str, arguments: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The phases that a job went through, and its result."""
    work, phases = job_steps.steps(job, arguments), []
    while True:
        try:
            phases.append(next(work).phase)
        except StopIteration as done:
            return phases, done.value


def test_every_job_can_be_imported() -> None:
    for place in JOBS.values():
        module, _, function = place.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_a_job_that_there_is_not() -> None:
    with pytest.raises(InternalError, match="there is no job 'nonsense'"):
        run("nonsense", {})


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"GGUF\0\0\0\0")
    with pytest.raises(InternalError, match=r"no\.gguf"):
        run("bench", NOTHING | {"path": str(path)})


def test_a_tier_that_there_is_not(demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOELLAMA_ISA", "nonsense")
    with pytest.raises(InternalError, match=r"^MOELLAMA_ISA=nonsense: no such tier"):
        run("bench", NOTHING | {"path": str(demo_model)})


def test_bench_of_the_embedded_model(demo_model: Path) -> None:
    phases, result = run("bench", NOTHING | {"path": str(demo_model), "batches": [1, 3]})
    (measured,) = result["runs"]
    assert [(t["n_prompt"], t["n_gen"], t["n_seq"], len(t["samples_ts"])) for t in measured["tests"]] == [
        (8, 0, 1, 2),
        (0, 4, 1, 2),
        (0, 4, 3, 2),
    ]
    for test in measured["tests"]:
        tokens = test["n_prompt"] or test["n_gen"] * test["n_seq"]
        for nanoseconds, speed in zip(test["samples_ns"], test["samples_ts"], strict=True):
            assert speed == pytest.approx(tokens / nanoseconds * 1e9, rel=1e-3)
    assert {"attention", "router", "CPU experts", "output", "sampling"} <= set(measured["parts"])
    assert all(seconds >= 0 for seconds in measured["parts"].values())
    assert phases


def test_a_text_longer_than_the_context(demo_model: Path) -> None:
    with pytest.raises(InternalError, match="longer than this model's context"):
        run("bench", NOTHING | {"path": str(demo_model), "prompts": [1 << 17]})
