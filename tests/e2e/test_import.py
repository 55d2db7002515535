"""A folder of safetensors as a user imports it: `create` with a Modelfile, then `run`, `show` and vectors."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
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


def test_adapter_from_a_folder(empty: Server, tmp_path: Path) -> None:
    tiny_hf.write(tmp_path / "hf", tiny_hf.CHECKPOINTS["llama"])
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora/adapter_config.json").write_text('{"lora_alpha": 400, "r": 2}')
    name = "base_model.model.model.layers.0.self_attn.v_proj.lora_{}.weight"
    halves = {name.format("A"): np.ones((2, 128), np.float32), name.format("B"): np.eye(64, 2, dtype=np.float32)}
    (tmp_path / "lora/adapter_model.safetensors").write_bytes(tiny_hf.safetensors(halves))
    settings = "PARAMETER num_predict 8\nPARAMETER temperature 0\n"
    (tmp_path / "Plain").write_text(f"FROM ./hf\n{settings}")
    (tmp_path / "Adapted").write_text(f"FROM ./hf\nADAPTER ./lora\n{settings}")
    for model in ("Plain", "Adapted"):
        made = moellama(empty, tmp_path, "create", model.lower(), "-f", model)
        assert made.returncode == 0, made.stderr
    assert "converting adapter" in made.stderr
    plain, adapted = (moellama(empty, tmp_path, "run", model, "the sky") for model in ("plain", "adapted"))
    assert (plain.returncode, adapted.returncode) == (0, 0), adapted.stderr
    assert plain.stdout != adapted.stdout


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
