"""warmup: after it a model loads and answers without compiling anything; what cannot be warmed is named, and the rest is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_gguf

from runtime.kernels.cache import LEDGER

ROOT = Path(__file__).resolve().parents[2]
LOAD = """
import sys
import numpy as np
from runtime.core import Batch
from runtime.execute import cpu
from runtime.kernels import draws, masked
phases = set()
for path in sys.argv[1:]:
    executor = cpu.load(path, num_ctx=64, num_parallel=1, num_batch=4, num_thread=2, kv_cache_type="q8_0",
                        progress=lambda phase, done, total: phases.add(phase))
    zero = np.zeros(1, np.int32)
    executor.forward(Batch(zero, zero, zero, np.zeros((1, 1), np.int32), zero))
    executor.close()
draws.compile_all()
masked.compile_all()
print(sorted(phases))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    own = {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "OLLAMA_MODELS": str(tmp_path / "models")}
    return os.environ | own | {"OLLAMA_KV_CACHE_TYPE": "q8_0"}


def run(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def test_nothing_is_compiled_after_it(environment: dict[str, str], tmp_path: Path) -> None:
    """Of two models, one of whose layers keep states."""
    names = "qwen3moe", "qwen35moe"
    models = [tiny_gguf.write(tmp_path / f"{name}.gguf", tiny_gguf.variant(name, "F32")) for name in names]
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(models[0].read_bytes()[:1000])
    first = run(environment, "-m", "ollama_compat", "warmup", "--json", broken, *models)
    assert first.returncode == 1
    assert first.stderr.splitlines()[-1].startswith("Error: broken.gguf: ")
    done = json.loads(first.stdout)
    assert done["compiled"] == done["kernels"] > 20
    again = run(environment, "-m", "ollama_compat", "warmup", *models)
    assert (again.returncode, again.stdout) == (0, f"{done['kernels']} kernels for 2 models ({done['isa']}): all are there\n")
    folder = Path(done["folder"])
    files, ledger = {path.name for path in folder.iterdir()}, (folder / LEDGER).read_text()
    loaded = run(environment, "-c", LOAD, *models)
    assert loaded.stdout == "['reading weights']\n", loaded.stderr
    assert {path.name for path in folder.iterdir()} == files
    assert (folder / LEDGER).read_text() == ledger


def test_what_there_is_not(environment: dict[str, str], tmp_path: Path) -> None:
    nothing = run(environment, "-m", "ollama_compat", "warmup")
    assert (nothing.returncode, nothing.stderr) == (1, f"Error: there are no models in {tmp_path}/models\n")
    nobody = run(environment, "-m", "ollama_compat", "warmup", "nobody")
    assert nobody.returncode == 1
    assert "not found" in nobody.stderr


def test_a_folder_that_cannot_be_written(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("qwen3", "F32"))
    done = run(environment | {"NUMBA_CACHE_DIR": str(tmp_path / "file")}, "-m", "ollama_compat", "warmup", model)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: compiled kernels are not kept: ")
