from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from ollama_compat import stream, wire
from ollama_compat.errors import ApiError
from ollama_compat.stream import READY

Parts = Callable[[], AsyncIterator[dict[str, Any]]]


async def client_for(parts: Parts, *, joined: bool = False) -> TestClient[web.Request, web.Application]:
    async def handler(request: web.Request) -> web.StreamResponse:
        if joined:
            return await stream.gather(parts(), stream.last)
        return await stream.stream(request, parts())

    app = web.Application()
    app.router.add_get("/", handler)
    server = TestServer(app)
    await server.start_server()  # with handler_cancellation, as the real one
    client = TestClient(server)
    await client.start_server()
    return client


async def get(parts: Parts, *, joined: bool = False) -> tuple[int, str, str]:
    client = await client_for(parts, joined=joined)
    try:
        async with client.get("/") as response:
            return response.status, response.headers["Content-Type"], await response.text()
    finally:
        await client.close()


async def three() -> AsyncIterator[dict[str, Any]]:
    yield READY
    for n in range(3):
        yield {"n": n}


async def breaks() -> AsyncIterator[dict[str, Any]]:
    yield READY
    yield {"n": 0}
    raise ApiError(500, "broke <here>")


async def refuses() -> AsyncIterator[dict[str, Any]]:
    raise ApiError(404, "no such thing")
    yield {}


async def fails_when_ready() -> AsyncIterator[dict[str, Any]]:
    yield READY
    raise ApiError(400, "no")


async def test_a_line_is_a_json_object() -> None:
    assert await get(three) == (200, "application/x-ndjson", '{"n":0}\n{"n":1}\n{"n":2}\n')


async def test_an_error_after_the_first_line_is_the_last_line() -> None:
    status, kind, text = await get(breaks)
    assert (status, kind) == (200, "application/x-ndjson")
    assert [json.loads(line) for line in text.splitlines()] == [{"n": 0}, {"error": "broke <here>"}]


async def test_an_error_before_the_first_line_has_its_own_status() -> None:
    assert await get(refuses) == (404, wire.JSON, '{"error":"no such thing"}')
    assert await get(fails_when_ready) == (400, wire.PLAIN_JSON, '{"error":"no"}')


async def test_joined_parts_are_one_answer() -> None:
    assert await get(three, joined=True) == (200, wire.JSON, '{"n":2}')
    assert await get(breaks, joined=True) == (500, wire.JSON, '{"error":"broke \\u003chere\\u003e"}')


async def test_headers_do_not_wait_for_a_slow_first_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HOLD_SECONDS", 0.01)
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[dict[str, Any]]:
        await gate.wait()
        yield READY
        raise ApiError(500, "late")

    client = await client_for(slow)
    try:
        async with client.get("/") as response:
            assert response.status == 200
            gate.set()
            assert await response.text() == '{"error":"late"}\n'
    finally:
        await client.close()


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("started", [False, True])
async def test_a_client_that_goes_away_closes_the_parts(joined: bool, started: bool) -> None:
    closed, begun = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[dict[str, Any]]:
        try:
            yield READY
            if started:
                yield {"n": 0}
            begun.set()
            await asyncio.sleep(3600)
        finally:
            closed.set()

    client = await client_for(endless, joined=joined)
    try:
        request = asyncio.create_task(client.session.get(client.make_url("/"), timeout=aiohttp.ClientTimeout()))
        await begun.wait()
        if started and not joined:
            (await request).close()
        else:
            request.cancel()
        async with asyncio.timeout(5):
            await closed.wait()
    finally:
        await client.close()


async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "WRITE_SECONDS", 0.05)
    closed = asyncio.Event()

    async def flood() -> AsyncIterator[dict[str, Any]]:
        try:
            while True:
                yield {"text": "x" * (1 << 20)}
        finally:
            closed.set()

    client = await client_for(flood)
    try:
        _, writer = await asyncio.open_connection(client.host, client.port, limit=1)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(5):
            await closed.wait()
        writer.close()
    finally:
        await client.close()
