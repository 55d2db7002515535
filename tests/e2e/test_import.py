"""A folder of safetensors as a user imports it: `create` with a Modelfile, then `run`, `show` and vectors."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_hf
from serving import Server

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.stop()


def moellama(server: Server, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ollama_compat", *words]
    environ = server.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )


def test_text_model_from_a_folder(empty: Server, tmp_path: Path) -> None:
    tiny_hf.write(tmp_path / "hf", tiny_hf.CHECKPOINTS["qwen3moe"], parts=2)
    (tmp_path / "Modelfile").write_text("FROM ./hf\nPARAMETER num_predict 5\nPARAMETER temperature 0\nSYSTEM Be brief.\n")
    made = moellama(empty, tmp_path, "create", "mine")
    assert made.returncode == 0, made.stderr
    for line in ("converting model", "writing manifest", "success"):
        assert line in made.stderr
    shown = moellama(empty, tmp_path, "show", "mine").stdout
    assert "qwen3moe" in shown
    assert "Be brief." in shown
    ran = moellama(empty, tmp_path, "run", "mine", "the sky")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()
    assert moellama(empty, tmp_path, "run", "mine", "the sky").stdout == ran.stdout


def test_vectors_from_a_folder(empty: Server, tmp_path: Path) -> None:
    tiny_hf.write(tmp_path / "hf", tiny_hf.CHECKPOINTS["bert"])
    made = moellama(empty, tmp_path / "hf", "create", "mine")  # without a Modelfile the model is what lies here
    assert made.returncode == 0, made.stderr
    body = json.dumps({"model": "mine", "input": ["the sky is blue", "the sky"]}).encode()
    with urllib.request.urlopen(f"{empty.host}/api/embed", body) as answer:
        vectors = json.load(answer)["embeddings"]
    assert [len(vector) for vector in vectors] == [128, 128]
    assert sum(x * x for x in vectors[0]) == pytest.approx(1, abs=1e-5)


def test_a_folder_that_cannot_be_converted(empty: Server, tmp_path: Path) -> None:
    files = tiny_hf.write(tmp_path / "hf", tiny_hf.CHECKPOINTS["llama"])
    files["config.json"].write_text('{"architectures": ["Rwkv7ForCausalLM"]}')
    made = moellama(empty, tmp_path / "hf", "create", "mine")
    assert made.returncode == 1
    assert 'Error: unsupported architecture "Rwkv7ForCausalLM"' in made.stderr
