"""JavaScript clients: each script prints what it found, one JSON line a check."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
MODULES = FOLDER.parents[1] / ".venv-clients/node_modules"
PARIS = [["get_weather", {"city": "Paris"}]]
EXPECTED: dict[str, dict[str, Any]] = {
    "openai.mjs": {
        **dict.fromkeys(("openai chat", "openai stream", "openai round trip", "openai runTools", "openai models"), True),
        **{"openai tools": PARIS, "openai structured": ["city"], "openai embeddings": [128, 128]},
        "openai responses": ["response.created", "response.completed", "completed"],
        **dict.fromkeys(("anthropic messages", "anthropic stream", "anthropic round trip", "anthropic count"), True),
        "anthropic tools": ["tool_use", ["city"]],
    },
    "frameworks.mjs": {
        **dict.fromkeys(("langchain chat", "langchain stream", "langchain round trip", "langchain structured"), True),
        **{"langchain tools": PARIS, "langchain embeddings": [128, 128]},
        **{f"{name} {what}": True for name in ("compatible", "ollama") for what in ("text", "stream", "structured")},
        "compatible required": True,
        **{f"{name} tools": ["sunny in Paris"] for name in ("compatible", "ollama")},
        **{f"{name} embeddings": [128, 128] for name in ("compatible", "ollama")},
    },
}


@pytest.mark.parametrize("script", EXPECTED)
def test_script(script: str, host: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node is not None, "needs Node.js"
    shutil.copy(FOLDER / script, tmp_path)
    (tmp_path / "node_modules").symlink_to(MODULES)
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    given: dict[str, Any] = {"cwd": tmp_path, "env": environ, "capture_output": True, "text": True}
    run = subprocess.run([node, script, host], timeout=300, check=False, **given)
    found = {entry["name"]: entry["value"] for entry in map(json.loads, run.stdout.splitlines())}
    assert found == EXPECTED[script], run.stderr
    assert run.returncode == 0, run.stderr
