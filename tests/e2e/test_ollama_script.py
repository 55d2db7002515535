"""A shell script written for `ollama` runs unchanged with `alias ollama=moellama`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server

SCRIPT = Path(__file__).resolve().parents[1] / "scripts/ollama_script.sh"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Server]:
    """A server with an empty store."""
    running = Server(tmp_path)
    yield running
    running.stop()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_script(empty: Server, tmp_path: Path) -> None:
    command = tmp_path / "bin/moellama"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ollama_compat "$@"\n')
    command.chmod(0o755)
    works(empty, {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(SCRIPT.parents[2])})


@pytest.mark.skipif("OLLAMA_BIN" not in os.environ, reason="OLLAMA_BIN names no ollama command")
def test_script_with_ollamas_own_command(empty: Server) -> None:
    works(empty, {"COMMAND": os.environ["OLLAMA_BIN"]})


def works(server: Server, variables: dict[str, str]) -> None:
    environ = server.environ | variables
    ended = subprocess.run(
        ["bash", str(SCRIPT)], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout}{ended.stderr}\n{server.log.read_text()}"
    assert ended.stdout.endswith("all well\n")
