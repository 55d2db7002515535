"""--json, which Ollama's command has not: what the server said, for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_ollama import SHOW, FakeOllama, Reply, run, stream

MODELS = [{"name": "qwen3:30b", "size": 5}, {"name": "llama3.2:latest", "size": 6}]
STEPS = [{"status": "pulling manifest"}, {"status": "success"}]


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama() as running:
        yield running


def out(server: FakeOllama, *args: str, **options: Any) -> str:
    result = run(*args, host=server.host, **options)
    assert (result.status, result.err) == (0, "")
    return result.out


@pytest.mark.parametrize("path", ["tags", "ps"])
def test_lists(server: FakeOllama, path: str) -> None:
    server.script({f"GET /api/{path}": Reply({"models": MODELS})})
    command = "list" if path == "tags" else "ps"
    assert json.loads(out(server, command, "--json")) == MODELS
    assert json.loads(out(server, command, "qwen", "--json")) == MODELS[:1]
    server.script({f"GET /api/{path}": Reply({"models": []})})
    assert json.loads(out(server, command, "--json")) == []


def test_show(server: FakeOllama) -> None:
    answer = SHOW | {"system": "be kind", "license": "MIT"}
    server.script({"POST /api/show": Reply(answer)})
    assert json.loads(out(server, "show", "m", "--json")) == answer
    assert json.loads(out(server, "show", "m", "--json", "--system")) == {"system": "be kind"}


def test_run(server: FakeOllama) -> None:
    answer = {"model": "m", "response": "Hé", "done": True, "eval_count": 2}
    server.script({"POST /api/generate": Reply(answer)})
    text = out(server, "run", "m", "--json", "hello")
    assert "Hé" in text
    assert json.loads(text) == answer
    (request,) = (body for method, path, body in server.requests if path == "/api/generate")
    assert (request["prompt"], request["stream"]) == ("hello", False)


@pytest.mark.parametrize("command", ["pull", "create"])
def test_progress(server: FakeOllama, tmp_path: Path, command: str) -> None:
    server.script({f"POST /api/{command}": stream(*STEPS)})
    (tmp_path / "Modelfile").write_text("FROM x\n")
    result = run(command, "m", "--json", host=server.host, folder=tmp_path)
    assert result.status == 0
    assert [json.loads(line) for line in result.out.splitlines()] == STEPS


def test_an_error_in_the_progress(server: FakeOllama) -> None:
    server.script({"POST /api/pull": stream({"status": "pulling manifest"}, {"error": "file does not exist"})})
    result = run("pull", "m", "--json", host=server.host)
    assert (result.status, result.err) == (1, "Error: file does not exist\n")


def test_help_shows_it_but_not_as_ollama(server: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["moellama"])
    assert "--json" in out(server, "list", "--help")
    assert "completion " in out(server, "--help")
    monkeypatch.setattr(sys, "argv", ["ollama"])
    assert "--json" not in out(server, "list", "--help")
    assert "completion" not in out(server, "--help")
