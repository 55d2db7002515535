"""Where a blob's bytes come from: a registry's address, or the one on another host that it redirects to."""

from __future__ import annotations

import aiohttp
from yarl import URL

from ollama_compat.registry.client import Client
from ollama_compat.registry.errors import Refused

_STALE = (401, 403, 404, 410)  # what storage says to a signed address whose time is over


class BlobSource:
    """A blob of a registry. `expected`: its size as the manifest has it, for registries that do not tell."""

    def __init__(self, client: Client, url: URL, expected: int) -> None:
        self._client, self._url, self._expected = client, url, expected
        self._direct: URL | None = None

    async def size(self) -> int:
        """Of the whole blob, in bytes."""
        try:
            response = await self._client.call("HEAD", self._url)
        except Refused as error:
            if error.answer in (403, 405, 501):  # storage whose signed addresses are good for GET alone
                return self._expected
            raise
        response.close()
        text = response.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() else self._expected

    async def open(self, start: int, stop: int) -> aiohttp.ClientResponse:
        """An answer with the bytes [start, stop), or with all of them."""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if self._direct is not None:
            response = await self._client.send("GET", self._direct, headers, bare=True, stalls=True)
            if response.status not in _STALE:
                return await self._checked(response)
            response.close()
            self._direct = None
        response = await self._client.call("GET", self._url, headers, stalls=True)
        if response.url.origin() != self._url.origin():
            self._direct = response.url
        return response

    async def _checked(self, response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
        if response.status >= 400:
            response.close()
            raise Refused(response.status, response.reason or "")
        return response
