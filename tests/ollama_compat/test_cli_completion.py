"""Completion: what `__complete` answers, and the scripts in the shells that are installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_ollama import FakeOllama, Reply

from ollama_compat.cli.client import Client
from ollama_compat.cli.commands import COMMANDS, own_flags
from ollama_compat.cli.completion import SHELLS, Line
from ollama_compat.settings import address

ROOT = Path(__file__).resolve().parents[2]
STORED = {"models": [{"name": name} for name in ("qwen3:30b", "qwen3:latest", "llama3.2:latest")]}
LOADED = {"models": [{"name": "qwen3:30b"}]}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    with FakeOllama() as running:
        yield running


@pytest.fixture
def line(server: FakeOllama) -> Line:
    server.script({"GET /api/tags": Reply(STORED), "GET /api/ps": Reply(LOADED)})
    return Line(COMMANDS, "moellama", own_flags("moellama"), Client(address(server.host, [])))


def names(answer: str) -> list[str]:
    return [each.partition("\t")[0] for each in answer.splitlines()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["p"], ["pull", "push", "ps", ":4"]),
        (["--v"], ["--verbose", "--version", ":4"]),
        (["run", ""], ["qwen3:30b", "qwen3", "llama3.2", ":4"]),
        (["run", "qwen3:"], ["qwen3:30b", ":4"]),
        (["run", "qwen3", ""], [":0"]),
        (["run", "--verbose", "ll"], ["llama3.2", ":4"]),
        (["run", "--think=l"], ["--think=low", ":4"]),
        (["run", "--format", ""], ["json", ":4"]),
        (["run", "--keepalive", ""], [":4"]),
        (["run", "--verbose="], ["--verbose=true", "--verbose=false", ":4"]),
        (["run", "--hide"], ["--hidethinking", ":4"]),
        (["create", "x", "-f", ""], [":0"]),
        (["create", "x", "--imatrix", ""], [":0"]),
        (["create", "x", "-q", "q4"], ["q4_K_M", "q4_K_S", ":4"]),
        (["stop", ""], ["qwen3:30b", ":4"]),
        (["rm", "a", "b", "ll"], ["llama3.2", ":4"]),
        (["cp", "a", ""], [":4"]),
        (["ls", "q"], ["qwen3:30b", "qwen3", ":4"]),
        (["completion", ""], [*SHELLS, ":4"]),
        (["help", "comp"], ["completion", ":4"]),
        (["nonsense", ""], [":4"]),
        (["serve", ""], [":4"]),
    ],
    ids=" ".join,
)
def test_candidates(line: Line, words: list[str], expected: list[str]) -> None:
    assert names(line.complete(words)) == expected


def test_descriptions(line: Line) -> None:
    assert line.complete(["sto"]) == "stop\tStop a running model\n:4\n"


def test_without_a_server() -> None:
    line = Line(COMMANDS, "moellama", own_flags("moellama"), Client(address("127.0.0.1:1", [])))
    assert line.complete(["run", ""]) == ":4\n"


@pytest.fixture
def environ(server: FakeOllama, tmp_path: Path) -> dict[str, str]:
    """Of a shell that finds `moellama`, and a server for it."""
    server.script({"GET /api/tags": Reply(STORED), "GET /api/ps": Reply(LOADED)})
    command = tmp_path / "bin/moellama"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ollama_compat "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OLLAMA_HOST": server.host, "HOME": str(tmp_path)}


def said(command: list[str], environ: dict[str, str]) -> list[str]:
    nothing = subprocess.DEVNULL
    ended = subprocess.run(command, env=environ, stdin=nothing, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
    return ended.stdout.splitlines()


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"needs {shell}")


@needs("bash")
@pytest.mark.parametrize(
    ("text", "expected"),
    [("moellama sto", ["stop"]), ("moellama run qwen3:", ["30b"]), ("moellama run ", ["qwen3:30b", "qwen3", "llama3.2"])],
)
def test_bash(environ: dict[str, str], text: str, expected: list[str]) -> None:
    code = f"""source <(moellama completion bash)
complete -p moellama >/dev/null || exit 1
COMP_LINE={text!r} COMP_POINT={len(text)}
_moellama
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    assert said(["bash", "--norc", "-c", code], environ) == expected


@needs("zsh")
def test_zsh(environ: dict[str, str]) -> None:
    code = """compdef() { print "compdef $*" }
_describe() { print -rl "${(@P)4}" }
source <(moellama completion zsh)
words=(moellama run qwen3:) CURRENT=3
_moellama
words=(moellama sto) CURRENT=2
_moellama
"""
    assert said(["zsh", "-f", "-c", code], environ) == ["compdef _moellama moellama", "qwen3\\:30b", "stop:Stop a running model"]


@needs("fish")
def test_fish(environ: dict[str, str]) -> None:
    code = 'moellama completion fish | source; complete -C "moellama sto"; complete -C "moellama run qwen3:"'
    assert said(["fish", "--no-config", "-c", code], environ) == ["stop\tStop a running model", "qwen3:30b"]


@needs("pwsh")
def test_powershell(environ: dict[str, str]) -> None:
    code = (
        "moellama completion powershell | Out-String | Invoke-Expression; "
        "(TabExpansion2 'moellama sto' 12).CompletionMatches.CompletionText"
    )
    assert said(["pwsh", "-NoProfile", "-Command", code], environ) == ["stop"]


def test_an_unknown_shell(environ: dict[str, str]) -> None:
    ended = subprocess.run(["moellama", "completion", "csh"], env=environ, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, 'Error: unknown shell "csh", expected one of bash, zsh, fish, powershell\n')


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_names_the_program(environ: dict[str, str], shell: str) -> None:
    text = "\n".join(said(["moellama", "completion", shell], environ))
    assert "PROGRAM" not in text
    assert "moellama __complete" in text.replace("'", "")
