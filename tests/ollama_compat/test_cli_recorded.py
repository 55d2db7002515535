"""Our command line against recordings of Ollama's: status, stdout, stderr and the requests that it made."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_cases import Case, cases
from fake_ollama import FakeOllama, meaning, run, without_frames
from record_cli import lay_out

RECORDED = Path(__file__).resolve().parents[1] / "fixtures/ollama/cli.json"


@functools.cache
def recorded() -> dict[str, Any]:
    return dict(json.loads(RECORDED.read_text())["cases"])


def test_every_case_is_recorded() -> None:
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)
    assert set(names) == set(recorded())


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    with FakeOllama() as running:
        yield running


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_as_recorded(case: Case, server: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ollama"])
    lay_out(case, tmp_path)
    server.script(case.replies)
    result = run(*case.args, host=server.host, stdin=case.stdin, folder=tmp_path, HOME=str(tmp_path))
    requests = meaning(server.requests)
    told: Any = {"status": result.status, "out": result.out, "err": without_frames(result.err), "requests": requests}
    told = json.loads(json.dumps(told).replace(str(tmp_path), "FOLDER"))
    assert told == recorded()[case.name]
