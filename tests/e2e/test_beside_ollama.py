"""With an Ollama on the same store: each goes on with a download that the other was killed in, and sweeps up nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fake_registry import FakeRegistry, serving

from ollama_compat.registry import Registry
from ollama_compat.store import Store
from ollama_compat.store.names import ModelName
from ollama_compat.store.prune import PARTIAL_AGE, prune

pytestmark = pytest.mark.skipif("OLLAMA_BIN" not in os.environ, reason="OLLAMA_BIN names no ollama command")

BLOB = random.Random(5).randbytes(60_000_000)
PACE = 25e6  # bytes a second


@contextlib.asynccontextmanager
async def registry() -> AsyncIterator[tuple[FakeRegistry, FakeRegistry]]:
    """A registry with one model, and the storage on another host that it redirects to, as Ollama wants it."""
    front = FakeRegistry()
    front.add_model("ns/m:latest", ("template", b"{{ .Prompt }}"), ("model", BLOB))
    storage = FakeRegistry(blobs=front.blobs, pace=PACE)
    async with serving(front), serving(storage, "localhost"):
        front.redirect = storage.base
        yield front, storage


@contextlib.asynccontextmanager
async def ollama(folder: Path) -> AsyncIterator[tuple[str, subprocess.Popen[bytes]]]:
    """An Ollama on the store `models` below the folder."""
    port = 20_000 + os.getpid() % 10_000
    environ = os.environ | {"OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(folder / "models"), "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([os.environ["OLLAMA_BIN"], "serve"], env=environ, stdout=log, stderr=log)  # noqa: ASYNC220
    try:
        for _ in range(200):
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


async def pull(url: str, name: str) -> Any:
    body = {"model": name, "insecure": True, "stream": False}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/api/pull", json=body) as response:
        return await response.json()


async def test_we_go_on_where_ollama_was_killed(tmp_path: Path) -> None:
    async with registry() as (front, storage):
        name = f"{front.host}/ns/m"
        async with ollama(tmp_path) as (url, process):
            task = asyncio.create_task(pull(url, name))
            await asyncio.sleep(1)
            process.send_signal(signal.SIGKILL)
            await asyncio.gather(task, return_exceptions=True)
        store = Store(tmp_path / "models")
        left = {path.name for path in store.blobs.folder.iterdir()}
        assert any(file.endswith("-partial") for file in left)
        prune(store, lambda: True, time.time() + 2 * PARTIAL_AGE)
        assert {file for file in left if "partial" in file} <= {path.name for path in store.blobs.folder.iterdir()}
        storage.pace = 0
        client = Registry(store, tmp_path / "key", {})
        lines = [line async for line in client.pull(ModelName.parse(name), insecure=True)]
        await client.close()
        assert lines[-1] == {"status": "success"}


async def test_ollama_goes_on_where_we_stopped(tmp_path: Path) -> None:
    async with registry() as (front, storage):
        store = Store(tmp_path / "models")
        client = Registry(store, tmp_path / "key", {})

        async def begin() -> None:
            async for _ in client.pull(ModelName.parse(f"{front.host}/ns/m"), insecure=True):
                pass

        task = asyncio.create_task(begin())
        async with asyncio.timeout(20):
            while storage.sent < len(BLOB) / 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()
        storage.pace, before = 0, storage.sent
        async with ollama(tmp_path) as (url, _):
            assert await pull(url, f"{front.host}/ns/m") == {"status": "success"}
        assert storage.sent - before < 0.7 * len(BLOB)
        assert store.get(ModelName.parse(f"{front.host}/ns/m")).manifest.size > len(BLOB)
