"""A proxy in front of a registry that does, now and then, what networks and servers do on a bad day."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web


@dataclasses.dataclass(slots=True)
class Fault:
    """What happens to the next `times` requests that match `pattern` ("METHOD /path range").

    kind: `cut` (the connection ends after `after` bytes of the body), `stall` (nothing comes after them), `flip` (one byte is
    another one), `shift` (the range begins one byte later than asked for), `short` (the request's body is cut after them), or a
    status with `headers`.
    """

    pattern: str
    kind: str | int
    times: int = 1
    after: int = 0
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


class FaultProxy:
    """The proxy; `seen` counts requests, `sent` the bytes of bodies that it passed on to clients."""

    def __init__(self, upstream: str, *faults: Fault) -> None:
        self.upstream, self.faults = upstream, list(faults)
        self.seen: list[str] = []
        self.sent = 0
        self.base = ""

    @property
    def host(self) -> str:
        """Address and port, as they begin a model's name."""
        return self.base.removeprefix("http://")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[FaultProxy]:
        """On a free port for as long as the context lasts."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            try:
                yield self
            finally:
                await runner.cleanup()

    def _fault(self, request: web.Request) -> Fault | None:
        text = f"{request.method} {request.path_qs} {request.headers.get('Range', '')}"
        self.seen.append(text)
        for fault in self.faults:
            if fault.times and re.search(fault.pattern, text):
                fault.times -= 1
                return dataclasses.replace(fault)  # of its own for each request
        return None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = self._fault(request)
        if fault and isinstance(fault.kind, int):
            return web.Response(status=fault.kind, text="not today", headers=fault.headers)
        headers = request.headers.copy()
        if fault and fault.kind == "shift":
            start, stop = re.fullmatch(r"bytes=(\d+)-(\d+)", headers["Range"]).groups()  # type: ignore[union-attr]
            headers["Range"] = f"bytes={int(start) + 1}-{stop}"
        body = await request.read()
        if fault and fault.kind == "short":
            headers["Content-Length"] = str(fault.after)
            headers["Content-Range"] = f"{headers['Content-Range'].split('-')[0]}-{fault.after - 1}"
            body = body[: fault.after]
        async with self._session.request(
            request.method, self.upstream + request.raw_path, headers=headers, data=body, allow_redirects=False
        ) as answer:
            if fault and fault.kind == "short":
                _abort(request)
            return await self._pass_on(request, answer, fault)

    async def _pass_on(self, request: web.Request, answer: aiohttp.ClientResponse, fault: Fault | None) -> web.StreamResponse:
        headers = {key: value for key, value in answer.headers.items() if key not in ("Transfer-Encoding", "Connection")}
        if "Location" in headers:
            headers["Location"] = headers["Location"].replace(self.upstream, self.base)
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        async for chunk in answer.content.iter_chunked(1 << 16):
            await self._write(request, response, chunk, fault)
        await response.write_eof()
        return response

    async def _write(self, request: web.Request, response: web.StreamResponse, chunk: bytes, fault: Fault | None) -> None:
        if fault and fault.kind == "flip":
            chunk, fault.kind = bytes([chunk[0] ^ 1]) + chunk[1:], "flipped"
        if fault and fault.kind in ("cut", "stall"):
            if fault.after < len(chunk):
                await response.write(chunk[: fault.after])
                self.sent += fault.after
                await _misbehave(request, str(fault.kind))
            fault.after -= len(chunk)
        await response.write(chunk)
        self.sent += len(chunk)


async def _misbehave(request: web.Request, kind: str) -> None:
    if kind == "stall":
        await asyncio.sleep(3600)
    await asyncio.sleep(0.01)  # so that what was written goes out
    _abort(request)


def _abort(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError
