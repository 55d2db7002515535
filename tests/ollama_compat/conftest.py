"""A real server on a free port, whose runners are `fake_worker.py`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ollama_compat.app import create_app
from ollama_compat.residency import Residency
from ollama_compat.runner import Runner
from ollama_compat.serve import listening
from ollama_compat.services import SERVICES, Services
from ollama_compat.settings import Address, Settings, origins

FAKE = str(Path(__file__).with_name("fake_worker.py"))


@dataclasses.dataclass(frozen=True, slots=True)
class Live:
    """A server that runs, and a client for it."""

    services: Services
    address: Address
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and parsed JSON (or text) of an answer."""
        async with self.session.request(method, path, **options) as response:
            is_json = "application/json" in response.headers.get("Content-Type", "")
            return response.status, await (response.json() if is_json else response.text())

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        """As `ask`, with the body as JSON; NDJSON comes as a list."""
        async with self.session.post(path, json=body) as response:
            if "ndjson" in response.headers.get("Content-Type", ""):
                return response.status, [json.loads(line) async for line in response.content]
            return response.status, await response.json()

    async def until_running(self, count: int) -> None:
        """Waits until the runners work on so many requests."""
        async with asyncio.timeout(10):
            while await self._running() != count:  # noqa: ASYNC110  (a process tells it, not an event)
                await asyncio.sleep(0.01)

    async def _running(self) -> int:
        return sum([(await resident.runner.stats()).running for resident in self.services.residency.list()])


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts servers: `await start(*arguments of the fake worker, **settings)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(*arguments: str, **changes: Any) -> Live:
            base = Settings(address=Address(port=0), models=tmp_path / "models", origins=origins(""))
            settings = dataclasses.replace(base, **changes)
            spawn = functools.partial(Runner.spawn, (sys.executable, FAKE, *arguments))
            app = create_app(settings, Residency(settings, spawn))
            address = await stack.enter_async_context(listening(settings, app))
            session = await stack.enter_async_context(aiohttp.ClientSession(address.url))
            return Live(app[SERVICES], address, session)

        yield begin


@pytest.fixture
async def live(start: Callable[..., Any]) -> Live:
    """A server with the usual settings."""
    server: Live = await start()
    return server


@pytest.fixture
async def go(start: Callable[..., Any]) -> Live:
    """A server that takes a model's Go template wherever there is one."""
    server: Live = await start(go_template=True)
    return server
