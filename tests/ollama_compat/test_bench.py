"""bench: its table and document from a job's result, and what it asks the job for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_gguf

from ollama_compat.cli import bench, work
from ollama_compat.cli.root import main

TEST = {
    "n_prompt": 0,
    "n_gen": 8,
    "n_depth": 0,
    "n_seq": 1,
    "samples_ns": [10**9, 2 * 10**9, 4 * 10**9],
    "samples_ts": [8.0, 4.0, 2.0],
    "read_bytes_per_second": 5e10,
    "limit_seconds": 0.1,
}
RUN = {
    "load_seconds": 1.0,
    "backend": "CUDA, CPU avx512",
    "placement": "2 layers' attention on GPU 0",
    "n_threads": 3,
    "kv_cache_type": "f16",
    "bytes_per_token": 5_000_000_000,
    "read_bytes_per_second": 4e10,
    "vram_bytes_per_second": 1e12,
    "limit_seconds": 0.2,
    "tests": [TEST, TEST | {"n_prompt": 16, "n_gen": 0}, TEST | {"n_seq": 4, "n_depth": 32}],
    "others": 0.05,
    "parts": {"hand-off": 0.75, "GPU experts": 0.25},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The arguments of each job, which is not run."""
    arguments: list[dict[str, Any]] = []

    def run(job: str, told: dict[str, Any]) -> dict[str, Any]:
        arguments.append(told)
        return {"isa": "avx512", "runs": [RUN]}

    monkeypatch.setattr(work, "run", run)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    return arguments


def test_the_table_has_llama_benchs_columns_and_the_parts(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "demo-moe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| " + " | ".join(bench.COLUMNS) + " |"
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:5]]
    assert cells[0][3:] == ["CUDA, CPU avx512", "3", "tg8", "4.00", "2.00-8.00", "20.0", "40%"]
    assert cells[1][5:] == ["pp16", "4.00", "2.00-8.00", "", ""]
    assert cells[2][5] == "tg8 @ d32 x4"
    assert "40.0 GB/s from RAM, 1000.0 GB/s from VRAM" in lines[7]
    assert lines[8].split() == ["hand-off", "750000.0", "us", "75.0%"]


@pytest.mark.parametrize(("others", "told"), [(1.04, True), (0.05, False), (None, False)])
def test_other_programs_are_told_of(
    others: float | None,
    told: bool,
    asked: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(work, "run", lambda *_: {"isa": "avx512", "runs": [RUN | {"others": others}]})
    assert main(["bench", "demo-moe"]) == 0
    assert ("During the tests other programs had 1.0 cores" in capsys.readouterr().out) is told


def test_the_document(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "demo-moe", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tests"][0]["share_of_limit"] == pytest.approx(0.4)
    assert found["tests"][0]["median_ts"] == 4.0
    assert found["tests"][1]["share_of_limit"] is None
    assert found["runs"][0]["parts"] == RUN["parts"]


def test_what_a_server_is_told_of_cards_goes_to_the_job(asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["bench", "demo-moe", "-p", "8,16", "-n", "0", "--parallel", "1"]) == 0
    monkeypatch.setenv("MOELLAMA_VRAM", "1000")
    monkeypatch.setenv("LLAMA_ARG_N_CPU_MOE", "3")
    assert main(["bench", "demo-moe", "--n-gpu-layers", "0"]) == 0
    assert main(["bench", "demo-moe", "--n-cpu-moe", "5"]) == 0
    assert "num_gpu" not in asked[0]
    assert (asked[0]["prompts"], asked[0]["gens"], asked[0]["vram"]) == ([8, 16], [0], 0)
    assert (asked[1]["num_gpu"], asked[1]["vram"], asked[1]["num_cpu_moe"]) == (0, 1000, 3)
    assert asked[2]["num_cpu_moe"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--n-prompt", "many"], "--n-prompt takes numbers from 0 to 1048576 with commas between them, not 'many'"),
        (["-n", "16,,32"], "--n-gen takes numbers from 0"),
        (["--parallel", "0"], "--parallel takes numbers from 1"),
        (["-r", "0"], "--repetitions takes a number from 1 to 1048576, not '0'"),
        (["-r", "1,2"], "--repetitions takes a number from 1 to 1048576, not '1,2'"),
        (["--n-gpu-layers", "3,4"], "--n-gpu-layers takes a number from 0"),
        (["--n-cpu-moe", "-1"], "--n-cpu-moe takes a number from 0"),
        (["-p", "0", "-n", "0"], "there is nothing to measure"),
        (["-p", "2049"], "2049 tokens are longer than this model's context of 2048"),
        (["-d", "16,2000", "-n", "64"], "2064 tokens are longer"),
    ],
)
def test_what_cannot_be_measured(
    words: list[str], said: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "demo-moe", *words]) == 1
    assert said in capsys.readouterr().err
    assert asked == []


def test_a_model_that_makes_vectors(asked: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.ENCODERS["bert"])
    assert main(["bench", str(path)]) == 1
    assert "m.gguf makes vectors and no text" in capsys.readouterr().err
    assert asked == []
