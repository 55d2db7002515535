"""One blob of the store to a registry: mounted from another repository, or sent in parts, to where the registry wants each."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from ollama_compat.errors import BadRequest
from ollama_compat.registry.client import Client, error_text, parsed
from ollama_compat.registry.errors import NotFound, Refused, RegistryError, Unauthorized, Unreachable
from ollama_compat.store.manifests import Layer
from ollama_compat.store.names import ModelName

_LOG = logging.getLogger(__name__)

MIN_PART, MAX_PART, PARTS = 100_000_000, 1_000_000_000, 16
STREAMS = 8
_BLOCK = 1 << 20  # bytes


class _Broken(RegistryError):
    """A part came to a bad end and can be tried again."""


class Upload:
    """The way of one blob to a registry. `total` and `completed` are bytes."""

    def __init__(self, client: Client, layer: Layer, path: Path) -> None:
        self.total: int | None = path.stat().st_size
        self._client, self._layer, self._path, self._size = client, layer, path, path.stat().st_size
        self._sent: dict[int, int] = {}  # by the offset of a part
        self._redirected: list[asyncio.Task[bytes]] = []

    @property
    def completed(self) -> int:
        """Bytes that were sent and not refused."""
        return sum(self._sent.values())

    async def run(self) -> None:
        """Afterwards the registry has the blob. Raises RegistryError."""
        patience, failures = self._client.access.patience, 0
        while True:
            try:
                return await self._once()
            except (NotFound, Unauthorized):
                raise
            except RegistryError as error:
                failures += 1
                if _is_final(error):
                    raise
                if failures >= patience.tries:
                    raise RegistryError(f"max retries exceeded: {error}") from error
                _LOG.info("upload of %s failed: %s, beginning again", self._layer.digest[7:19], error)
                await asyncio.sleep(patience.wait(failures))
            finally:
                await self._cancel_parts()
            self._sent.clear()

    async def _once(self) -> None:
        url = await self._begin()
        if url is not None:
            url = await self._parts(url)
            await self._finish(url, await self._etag())
        self._sent = {0: self._size}

    async def _begin(self) -> URL | None:
        """Where the first part goes; None when the registry took the blob from another repository."""
        url = self._client.url("blobs", "uploads/")
        if self._layer.source:
            with contextlib.suppress(BadRequest):  # a source that is no model
                source = ModelName.parse(self._layer.source)
                url = _with_query(url, mount=self._layer.digest, **{"from": f"{source.namespace}/{source.model}"})
        response = await self._client.call("POST", url, {"Content-Length": "0"})
        response.close()
        return None if response.status == 201 else _location(response)

    async def _parts(self, url: URL) -> URL:
        """Sends everything; where to finish."""
        size = min(max(self._size // PARTS, MIN_PART), MAX_PART)
        at = failures = 0
        while at < self._size:
            stop = min(at + size, self._size)
            try:
                url = await self._part(url, at, stop)
                at, failures = stop, 0
            except _Broken as error:
                failures += 1
                if failures >= self._client.access.patience.tries:
                    raise RegistryError(f"max retries exceeded: {error}") from error
                _LOG.info("%s at byte %d: %s", self._layer.digest[7:19], at, error)
                await asyncio.sleep(self._client.access.patience.wait(failures))
                url, at = await self._resume(url)
        return url

    async def _part(self, url: URL, start: int, stop: int) -> URL:
        """Offers a part; where the next one goes. A registry that wants it elsewhere gets it there, beside the next ones."""
        headers = {"Content-Range": f"{start}-{stop - 1}", "X-Redirect-Uploads": "1"}
        response = await self._send("PATCH", url, start, stop, headers)
        if response.status == 307:
            response.close()
            self._sent.pop(start, None)
            target = url.join(parsed(response.headers.get("Location", "")))
            running = [task for task in self._redirected if not task.done()]
            if len(running) >= STREAMS:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            self._redirected.append(asyncio.create_task(self._elsewhere(target, start, stop)))
        elif response.status >= 400:
            self._sent.pop(start, None)
            raise _Broken(f"http status {response.status} {response.reason}: {await error_text(response)}")
        response.close()
        return _location(response)

    async def _elsewhere(self, url: URL, start: int, stop: int) -> bytes:
        """Puts a part where the registry wants it; its MD5, as storage wants it."""
        patience, failures = self._client.access.patience, 0
        while True:
            digest = hashlib.md5(usedforsecurity=False)
            try:
                response = await self._send("PUT", url, start, stop, {}, digest)
                if response.status >= 400:
                    raise _Broken(f"http status {response.status} {response.reason}: {await error_text(response)}")
                response.close()
                return digest.digest()
            except _Broken as error:
                self._sent.pop(start, None)
                failures += 1
                if failures >= patience.tries:
                    raise RegistryError(f"max retries exceeded: {error}") from error
                await asyncio.sleep(patience.wait(failures))

    async def _send(
        self, method: str, url: URL, start: int, stop: int, headers: dict[str, str], digest: hashlib._Hash | None = None
    ) -> aiohttp.ClientResponse:
        """One request with the bytes [start, stop); _Broken when it fails or stalls."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(stop - start), **headers}
        body = lambda: self._bytes(start, stop, digest)  # noqa: E731  (made anew for each try)
        task = asyncio.create_task(self._client.transfer(method, url, headers, body, bare=method == "PUT"))
        try:
            while not task.done():
                before = self._sent.get(start, 0)
                await asyncio.wait((task,), timeout=self._client.access.patience.stall)
                if not task.done() and self._sent.get(start, 0) == before:
                    raise _Broken("part stalled")
            return task.result()
        except (NotFound, Unauthorized, _Broken):
            raise
        except RegistryError as error:
            raise _Broken(error.message) from error
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _bytes(self, start: int, stop: int, digest: hashlib._Hash | None) -> AsyncGenerator[bytes, None]:
        self._sent[start] = 0
        with self._path.open("rb", buffering=0) as file:
            file.seek(start)
            while start + self._sent[start] < stop:
                block = await asyncio.to_thread(file.read, min(_BLOCK, stop - start - self._sent[start]))
                if not block:
                    raise RegistryError(f"{self._path.name} became shorter")
                if digest is not None:
                    digest.update(block)
                yield block
                self._sent[start] += len(block)

    async def _resume(self, url: URL) -> tuple[URL, int]:
        """Where to go on after a part that failed. RegistryError when the registry does not know: then all is sent again."""
        try:
            response = await self._client.call("GET", url)
        except RegistryError as error:
            raise RegistryError(f"the upload is lost: {error}") from error
        response.close()
        last = response.headers.get("Range", "").partition("-")[2]
        if response.status != 204 or not last.isdigit() or self._redirected:
            raise RegistryError("the registry does not tell what it has")
        at = int(last) + 1 if int(last) else 0  # "0-0" is how nothing is written
        self._sent = {0: at}
        return _location(response), at

    async def _etag(self) -> str:
        """What storage calls an object that came in such parts; empty where the registry took them itself."""
        if not self._redirected:
            return ""
        digests = await asyncio.gather(*self._redirected)
        return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"

    async def _finish(self, url: URL, etag: str) -> None:
        query = {"digest": self._layer.digest, **({"etag": etag} if etag else {})}
        headers = {"Content-Type": "application/octet-stream", "Content-Length": "0"}
        try:
            async with asyncio.timeout(self._client.access.patience.commit):
                response = await self._client.call("PUT", _with_query(url, **query), headers, b"", stalls=True)
        except TimeoutError as error:
            raise Unreachable("PUT", str(url), error) from error
        response.close()

    async def _cancel_parts(self) -> None:
        parts, self._redirected = self._redirected, []
        for task in parts:
            task.cancel()
        await asyncio.gather(*parts, return_exceptions=True)


def _is_final(error: RegistryError) -> bool:
    """Whether trying again would give the same answer."""
    return isinstance(error, Refused) and 400 <= error.answer < 500 and error.answer not in (408, 416, 429)


def _location(response: aiohttp.ClientResponse) -> URL:
    text = response.headers.get("Docker-Upload-Location") or response.headers.get("Location") or ""
    return response.url.join(parsed(text))


def _with_query(url: URL, **values: str) -> URL:
    text = str(url)
    return parsed(f"{text}{'&' if '?' in text else '?'}{urlencode(values)}")
