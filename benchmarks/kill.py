"""Kills the server with SIGKILL at random moments of a pull, a create and a copy, and looks for damage after each kill.

    python benchmarks/kill.py [--kills 200] [--only pull create copy] [--seed 1]

After every kill the whole store is checked: each manifest, each blob's bytes, each GGUF header. The model in the making is there
in full or not at all, and the model that was there before still is. Every few kills the work is let through to its end; for pulls
that shows how many bytes are fetched again because of the kills.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests"))

from fake_registry import FakeRegistry, serving

from ollama_compat.compare.processes import free_port
from ollama_compat.store import Store
from ollama_compat.store.fsck import Check

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "ollama_compat/data/demo-moe-Q4_K_M.gguf"
EXTRA = 48 << 20  # bytes of a second layer, so that a pull takes several parts
PACE = 12e6  # bytes a second of each connection to the registry
LET_THROUGH = 4  # the work is let through to its end after so many kills


class Victim:
    """A server on a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = Store(folder / "models")
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        environ = os.environ | {
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
            "OLLAMA_MODELS": str(self.store.root),
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "ollama_compat", "serve"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)  # noqa: ASYNC220
        for _ in range(600):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
        raise TimeoutError("the server does not start")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    async def ask(self, method: str, path: str, **options: Any) -> None:
        """One request to its end; RuntimeError for an answer that is an error."""
        async with aiohttp.ClientSession(self.url) as session, session.request(method, path, **options) as response:
            text = await response.text()
            if response.status >= 400 or '"error"' in text:
                raise RuntimeError(f"{method} {path}: {response.status} {text[-300:]}")

    def damages(self) -> list[str]:
        return [f"{finding.where}: {finding.what}" for finding in Check(self.store).run() if finding.is_damage]

    def models(self) -> set[str]:
        return {name.model for name in self.store.names()}


Work = Callable[[], Awaitable[None]]


class Trial:
    """One kind of work: how it is done, and undone to be done again."""

    def __init__(self, victim: Victim, name: str, work: Work, target: str) -> None:
        self.victim, self.name, self.work, self.target = victim, name, work, target
        self.kills = self.finished = self.there = 0
        self.damages: list[str] = []

    async def run(self, kills: int, chance: random.Random) -> None:
        await self.victim.start()
        started = time.monotonic()
        await self.work()
        usual = time.monotonic() - started
        while self.kills < kills:
            if self.kills % LET_THROUGH == 0:
                await self._begin_anew()
            await self._kill(chance.uniform(0, 1.1 * usual))
            await self.victim.start()
            if self.kills % LET_THROUGH == 0:
                await self.work()
                self.finished += 1
                self._look(needed=True)

    async def _begin_anew(self) -> None:
        for name in self.victim.store.names():
            if name.model == self.target:
                await self.victim.ask("DELETE", "/api/delete", json={"model": name.full()})

    async def _kill(self, delay: float) -> None:
        work = asyncio.ensure_future(self.work())
        await asyncio.sleep(delay)
        self.victim.kill()
        await asyncio.gather(work, return_exceptions=True)
        self.kills += 1
        self._look(needed=False)
        print(f"{self.name}: {self.kills} kills, {len(self.damages)} damages", end="\r", file=sys.stderr, flush=True)

    def _look(self, *, needed: bool) -> None:
        self.damages += self.victim.damages()
        models = self.victim.models()
        if "keep" not in models or (needed and self.target not in models):
            self.damages.append(f"{sorted(models)} is all that is left")
        self.there += self.target in models


async def upload_and_create(victim: Victim) -> None:
    data = MODEL.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await victim.ask("POST", f"/api/blobs/{digest}", data=data)
    body = {
        "model": "made",
        "files": {"m.gguf": digest},
        "system": "Be brief.",
        "parameters": {"seed": 1},
        "license": "L" * 10_000,
    }
    await victim.ask("POST", "/api/create", json=body)


async def copy_and_replace(victim: Victim) -> None:
    for source in ("keep", "other", "keep"):
        await victim.ask("POST", "/api/copy", json={"source": source, "destination": "copied"})


def registry_with_model() -> FakeRegistry:
    registry = FakeRegistry(pace=PACE)
    extra = random.Random(0).randbytes(EXTRA)
    registry.add_model("ns/pulled:latest", ("model", MODEL.read_bytes() + b"\0"), ("license", extra), ("system", b"Be brief."))
    return registry


async def main(options: argparse.Namespace) -> int:
    chance = random.Random(options.seed)
    damages = 0
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        async with serving(registry_with_model()) as registry:
            for name in options.only:
                victim = Victim(Path(folder, name))
                victim.folder.mkdir()
                await prepare(victim)
                trial = trial_of(name, victim, registry)
                before = registry.sent
                try:
                    await trial.run(options.kills, chance)
                finally:
                    victim.kill()
                damages += len(trial.damages)
                report(trial, registry.sent - before)
    return 1 if damages else 0


async def prepare(victim: Victim) -> None:
    await victim.start()
    await victim.ask("POST", "/api/pull", json={"model": "demo-moe"})
    for name, system in (("keep", "one"), ("other", "two")):
        await victim.ask("POST", "/api/create", json={"model": name, "from": "demo-moe", "system": system})
    await victim.ask("DELETE", "/api/delete", json={"model": "demo-moe"})
    victim.kill()


def trial_of(name: str, victim: Victim, registry: FakeRegistry) -> Trial:
    if name == "pull":
        body = {"model": f"{registry.host}/ns/pulled", "insecure": True}
        return Trial(victim, name, lambda: victim.ask("POST", "/api/pull", json=body), "pulled")
    if name == "create":
        return Trial(victim, name, lambda: upload_and_create(victim), "made")
    return Trial(victim, name, lambda: copy_and_replace(victim), "copied")


def report(trial: Trial, sent: int) -> None:
    result = {"work": trial.name, "kills": trial.kills, "damaged": len(trial.damages), "then finished": trial.finished}
    if trial.name == "pull":
        size = EXTRA + MODEL.stat().st_size
        again = (sent - size * (trial.finished + 1)) / trial.kills
        result["MB of the model"] = round(size / 1e6, 1)
        result["MB fetched again for each kill"] = round(again / 1e6, 2)
    print(json.dumps(result), flush=True)
    for damage in trial.damages:
        print(f"  {damage}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of each kind of work")
    parser.add_argument("--only", nargs="+", choices=("pull", "create", "copy"), default=["pull", "create", "copy"])
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, seed {chosen.seed}")
    sys.exit(asyncio.run(main(chosen)))
