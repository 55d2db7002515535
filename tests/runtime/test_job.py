"""Jobs: a process for one piece of work, from both sides of its pipes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ollama_compat import jobs
from runtime.frames import LoadProgress
from runtime.job import JOBS

NOTHING = {"prompts": [8], "gens": [4], "depths": [0], "batches": [1], "repetitions": 2, "threads": [1]}


def ignore(report: LoadProgress) -> None:
    """For jobs whose progress is of no interest."""


def test_every_job_can_be_imported() -> None:
    import importlib

    for place in JOBS.values():
        module, _, function = place.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_a_job_that_there_is_not() -> None:
    with pytest.raises(jobs.JobFailed, match="there is no job 'nonsense'") as caught:
        jobs.run("nonsense", {}, ignore)
    assert caught.value.kind == "bad_request"


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"GGUF\0\0\0\0")
    with pytest.raises(jobs.JobFailed) as caught:
        jobs.run("bench", NOTHING | {"path": str(path)}, ignore)
    assert caught.value.kind == "bad_model"


def test_a_process_that_dies_is_named_with_its_last_words() -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('out of luck')")
    with pytest.raises(jobs.JobFailed, match="status 1: out of luck"):
        jobs.run("bench", {}, ignore, command)


def test_bench_of_the_embedded_model(demo_model: Path) -> None:
    seen: list[str] = []
    result = jobs.run("bench", NOTHING | {"path": str(demo_model), "batches": [1, 3]}, lambda report: seen.append(report.phase))
    (run,) = result["runs"]
    assert [(t["n_prompt"], t["n_gen"], t["n_seq"], len(t["samples_ts"])) for t in run["tests"]] == [
        (8, 0, 1, 2),
        (0, 4, 1, 2),
        (0, 4, 3, 2),
    ]
    for test in run["tests"]:
        tokens = test["n_prompt"] or test["n_gen"] * test["n_seq"]
        for nanoseconds, speed in zip(test["samples_ns"], test["samples_ts"], strict=True):
            assert speed == pytest.approx(tokens / nanoseconds * 1e9, rel=1e-3)
    assert {"attention", "router", "CPU experts", "output", "sampling"} <= set(run["parts"])
    assert all(seconds >= 0 for seconds in run["parts"].values())
    assert "reading 8 tokens" in seen
    assert "writing 4 tokens, 3 at a time" in seen


def test_a_text_longer_than_the_context(demo_model: Path) -> None:
    with pytest.raises(jobs.JobFailed, match="longer than this model's context"):
        jobs.run("bench", NOTHING | {"path": str(demo_model), "prompts": [1 << 17]}, ignore)
