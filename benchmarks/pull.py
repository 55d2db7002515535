"""Speed of a pull from a registry on the loopback, in turns with curl fetching the same blob.

    python benchmarks/pull.py [--size 1000] [--rounds 5] [--folder /tmp]

The registry is Debian's docker-registry. A pull hashes every byte and syncs the file; curl does neither, unless its bytes go
through sha256sum on their way, or it is followed by sha256sum and sync: both are measured too. Megabytes (10^6 bytes) a second,
medians of all rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests"))

import docker_registry

from ollama_compat.compare.processes import free_port
from ollama_compat.registry import Registry
from ollama_compat.store import Store, manifests
from ollama_compat.store.names import ModelName

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = 1 << 20


async def publish(folder: Path, name: ModelName, size: int) -> str:
    """Makes a model with a blob of random bytes, and pushes it; the blob's digest."""
    store = Store(folder / "from")
    with store.making() as making, making.writer() as writer:
        for _ in range(0, size, _BLOCK):
            writer.write(os.urandom(_BLOCK))
        layer, _ = making.finish(manifests.MODEL, writer)
        config, _ = making.add(manifests.CONFIG, b"{}")
        store.put(name, config, (layer,))
    client = Registry(store, folder / "key", {})
    async for _ in client.push(name, insecure=True):
        pass
    await client.close()
    shutil.rmtree(folder / "from")
    return layer.digest


class Server:
    """Our server, running."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url, self.models = f"http://127.0.0.1:{port}", folder / "models"
        environ = os.environ | {"OLLAMA_HOST": self.url, "OLLAMA_MODELS": str(self.models), "HOME": str(folder)}
        environ["PYTHONPATH"] = str(ROOT)
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "ollama_compat", "serve"], env=environ, stdout=log, stderr=log)
        docker_registry.wait(f"127.0.0.1:{port}")

    async def pull(self, name: str) -> None:
        body = {"model": name, "insecure": True, "stream": False}
        async with aiohttp.ClientSession() as session, session.post(f"{self.url}/api/pull", json=body) as response:
            assert await response.json() == {"status": "success"}, await response.text()

    def forget(self) -> None:
        shutil.rmtree(self.models / "blobs")
        shutil.rmtree(self.models / "manifests")


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def shell(command: str) -> Callable[[], object]:
    return lambda: subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)


def measure(options: argparse.Namespace, folder: Path, host: str) -> None:
    name = ModelName.parse(f"{host}/ns/speed")
    size = options.size * 1_000_000 // _BLOCK * _BLOCK
    digest = asyncio.run(publish(folder, name, size))
    out = folder / "curl"
    fetch = f"curl -s -o {out} http://{host}/v2/ns/speed/blobs/{digest}"
    server = Server(folder)
    ways: dict[str, Callable[[], object]] = {
        "curl": shell(fetch),
        "pull": lambda: asyncio.run(server.pull(str(name))),
        "curl | tee | sha256sum": shell(f"curl -s http://{host}/v2/ns/speed/blobs/{digest} | tee {out} | sha256sum"),
        "curl, sha256sum, sync": shell(f"{fetch} && sha256sum {out} && sync {out}"),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    try:
        for turn in range(options.rounds):
            for way in list(ways) if turn % 2 else reversed(list(ways)):
                os.sync()
                seconds[way].append(timed(ways[way]))
                out.unlink(missing_ok=True)
                if way == "pull":
                    server.forget()
    finally:
        server.process.kill()
    speeds = {way: size / 1e6 / statistics.median(taken) for way, taken in seconds.items()}
    spread = {way: [round(size / 1e6 / second) for second in sorted(taken, reverse=True)] for way, taken in seconds.items()}
    print(json.dumps({"MB/s": {way: round(speed) for way, speed in speeds.items()}, "all": spread}))
    print(f"pull / curl = {speeds['pull'] / speeds['curl']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1000, help="of the blob, in megabytes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    if docker_registry.PROGRAM is None:
        sys.exit("docker-registry is not installed (apt install docker-registry)")
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {options.size} MB, {options.folder}")
    with (
        tempfile.TemporaryDirectory(prefix="pull-", dir=options.folder) as folder,
        docker_registry.serving(Path(folder, "registry"), docker_registry.PROGRAM) as host,
    ):
        measure(options, Path(folder), host)


if __name__ == "__main__":
    main()
