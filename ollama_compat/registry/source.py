"""Where a blob's bytes come from: a registry's address, or the one on another host that it redirects to."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Mapping

import aiohttp
from yarl import URL

from ollama_compat.registry.client import Client

RANGE = re.compile(r"bytes (\d+)-(\d*)/(\d+|\*)")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Target:
    """An address that gives the bytes themselves, and the headers that it wants."""

    url: URL
    headers: Mapping[str, str]
    size: int  # of the whole blob, in bytes


class BlobSource:
    """A blob of a registry. `expected`: its size as the manifest has it, for registries that do not tell."""

    def __init__(self, client: Client, url: URL, expected: int) -> None:
        self._client, self._url, self._expected = client, url, expected
        self._target: Target | None = None
        self._asking = asyncio.Lock()

    async def locate(self) -> Target:
        """Asks the registry for the first byte, which shows where it comes from; remembered until it is `stale`."""
        async with self._asking:
            if self._target is None:
                response = await self._client.call("GET", self._url, {"Range": "bytes=0-0"}, stalls=True)
                response.close()
                same = response.url.origin() == self._url.origin()
                headers = self._client.headers(response.url if same else None)
                self._target = Target(response.url, headers, _size(response, self._expected))
            return self._target

    def stale(self, target: Target) -> None:
        """The address has no more bytes to give, as happens to signed ones, or its token is over."""
        if self._target is target:
            self._target = None


def _size(response: aiohttp.ClientResponse, expected: int) -> int:
    told = RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status == 206:
        return int(told[3]) if told and told[3] != "*" else expected
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else expected
