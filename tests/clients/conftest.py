"""A real server, started by the Python of `.venv`, for clients that live in `.venv-clients`: see `make test-clients`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import Server

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv/bin/python"
WRITE_ENCODER = "import sys, pathlib, tiny_gguf; tiny_gguf.write(pathlib.Path(sys.argv[1]), tiny_gguf.ENCODERS['bert'])"


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that has `demo-moe`, and `encoder`, which makes vectors of random weights."""
    folder = tmp_path_factory.mktemp("server")
    os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    server = Server(folder, python=str(PYTHON))
    path = folder / "encoder.gguf"
    subprocess.run([PYTHON, "-c", WRITE_ENCODER, path], check=True)
    digest = subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True).stdout.split()[0]
    with httpx.Client(base_url=server.host, timeout=300) as http:  # the first model may have to wait for its kernels
        http.post(f"/api/blobs/sha256:{digest}", content=path.read_bytes()).raise_for_status()
        http.post("/api/generate", json={"model": "demo-moe"}).raise_for_status()  # it is in the store from its first use on
        body = {"model": "encoder", "files": {"encoder.gguf": f"sha256:{digest}"}, "stream": False}
        http.post("/api/create", json=body).raise_for_status()
    yield server.host
    assert server.stop() == 0
