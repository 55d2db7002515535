"""Push to a real registry and pull back: by the command line, and in the face of faults on the way."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker_registry
import pytest
from fault_proxy import Fault, FaultProxy
from serving import Server
from store_files import assert_sound

from ollama_compat.registry import Patience, Registry, partial, upload
from ollama_compat.store import Store, manifests
from ollama_compat.store.manifests import Layer
from ollama_compat.store.names import ModelName

pytestmark = pytest.mark.skipif(docker_registry.PROGRAM is None, reason="needs Debian's package docker-registry")

BLOB = random.Random(3).randbytes(3_000_000)
HASTE = Patience(stall=1.0, first_wait=0.01)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address and port of the registry."""
    with docker_registry.serving(tmp_path_factory.mktemp("registry"), str(docker_registry.PROGRAM)) as host:
        yield host


def moellama(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"OLLAMA_HOST": server.host}
    command = [sys.executable, "-m", "ollama_compat", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_a_model_goes_out_and_comes_back(registry: str, tmp_path: Path) -> None:
    folders = [tmp_path / "there", tmp_path / "here"]
    for folder in folders:
        folder.mkdir()
    there, here = map(Server, folders)
    try:
        name = f"{registry}/ns/demo"
        assert moellama(there, "pull", "demo-moe").returncode == 0
        assert moellama(there, "cp", "demo-moe", name).returncode == 0
        pushed = moellama(there, "push", name, "--insecure")
        assert pushed.returncode == 0, pushed.stderr
        pulled = moellama(here, "pull", name, "--insecure")
        assert pulled.returncode == 0, pulled.stderr
        assert pulled.stderr.splitlines()[0] == "pulling manifest"
        assert pulled.stderr.splitlines()[-1] == "success"
        listed = [moellama(server, "list").stdout.splitlines() for server in (there, here)]
        identifiers = [{line.split()[1] for line in lines if line.startswith(name)} for lines in listed]
        assert identifiers[0] == identifiers[1] != set()
        assert "qwen3moe" in moellama(here, "show", name).stdout
    finally:
        there.stop()
        here.stop()


def add_model(store: Store, name: ModelName) -> None:
    with store.making() as making:
        model, _ = making.add(manifests.MODEL, BLOB)
        config, _ = making.add(manifests.CONFIG, b"{}")
        store.put(name, config, (Layer(model.media_type, model.digest, model.size),))


PULL_FAULTS = [
    Fault("GET .*blobs.*bytes=(?!0-0$)", "cut", times=6, after=300_000),
    Fault("GET .*blobs.*bytes=(?!0-0$)", "stall", times=2, after=100_000),
    Fault("GET .*blobs.*bytes=(?!0-0$)", "shift", times=2),
    Fault("GET .*(blobs|manifests)", 503, times=3),
    Fault("HEAD .*blobs", 429, times=2, headers={"Retry-After": "0"}),
]
PUSH_FAULTS = [Fault("PATCH", 500, times=2), Fault("PATCH", "short", times=2, after=200_000), Fault("POST", 502, times=2)]


async def test_faults_on_the_way(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "MIN_PART", 500_000)
    monkeypatch.setattr(upload, "MIN_PART", 500_000)
    async with FaultProxy(f"http://{registry}", *PULL_FAULTS, *PUSH_FAULTS).serving() as proxy:
        name = ModelName.parse(f"{proxy.host}/ns/faulty")
        digests = []
        for folder in ("from", "to"):
            store = Store(tmp_path / folder)
            client = Registry(store, tmp_path / "id_ed25519", {}, HASTE)
            work: Any = client.pull
            if folder == "from":
                add_model(store, name)
                work = client.push
            lines = [line async for line in work(name, insecure=True)]
            assert lines[-1] == {"status": "success"}
            await client.close()
            assert_sound(store)
            digests.append(store.manifests.read(name).digest)
        assert digests[0] == digests[1]
        assert all(fault.times == 0 for fault in (*PULL_FAULTS, *PUSH_FAULTS))
