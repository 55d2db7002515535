"""The real `ollama` JavaScript client (npm) against the real server; skipped where Node.js or the package is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving import Server

SCRIPT = Path(__file__).with_name("client.mjs")
MODULES = Path(os.environ.get("MOELLAMA_NODE_MODULES", Path(sys.prefix) / "node/node_modules"))  # `make test` fills it


@pytest.fixture(scope="module")
def results(server: Server, demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    node = shutil.which("node")
    if node is None or not (MODULES / "ollama").is_dir():
        pytest.skip("needs Node.js and the npm package ollama (make test installs it where npm is)")
    folder = tmp_path_factory.mktemp("js")
    shutil.copy(SCRIPT, folder)
    (folder / "node_modules").symlink_to(MODULES)
    run = subprocess.run(
        [node, SCRIPT.name, server.host, str(demo_model)], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    return {entry["name"]: entry["value"] for entry in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize("name", ["chat", "stream", "think", "tool result", "generate", "blob", "ps"])
def test_is_true(name: str, results: dict[str, object]) -> None:
    assert results[name] is True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", {"name": "get_weather", "arguments": {"city": "Paris"}}),
        ("abort", "AbortError"),
        ("create", "success"),
        ("create from", "success"),
        ("copy", "success"),
        ("list", ["js-copy:latest", "js-made:latest", "js-pirate:latest"]),
        ("show", "You are a pirate."),
        ("missing", [404, "model 'js-made:latest' not found"]),
    ],
)
def test_equals(name: str, value: object, results: dict[str, object]) -> None:
    got = results[name]
    if name == "tools":
        assert isinstance(got, dict)
        got = {key: got[key] for key in ("name", "arguments")}
    assert got == value


def test_version_is_one_that_clients_accept(results: dict[str, object]) -> None:
    assert str(results["version"]).startswith("0.33.")
