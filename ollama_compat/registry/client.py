"""Requests to one registry for one model: addresses, tokens, errors, and patience with a busy server."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import platform
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from ollama_compat import gojson
from ollama_compat.duration import quote
from ollama_compat.proxy import proxy_for
from ollama_compat.registry.challenge import Challenge
from ollama_compat.registry.errors import NotFound, Refused, RegistryError, Unauthorized, Unreachable
from ollama_compat.settings import VERSION, Address
from ollama_compat.store.names import ModelName

_LOG = logging.getLogger(__name__)

MAX_ERROR = 64 << 10  # bytes that are read of an answer that tells of an error
_BUSY = (429, 502, 503, 504)
_ARCHITECTURE = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}
USER_AGENT = f"ollama/{VERSION} ({_ARCHITECTURE.get(platform.machine(), platform.machine())} {sys.platform}) moellama"

Body = Callable[[], AsyncIterator[bytes]] | bytes | None
"""What a request sends; a function makes it anew for each try."""


@dataclasses.dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds, and how often they are tried."""

    connect: float = 30.0
    answer: float = 60.0  # until a small answer is there
    stall: float = 30.0  # a transfer that moves no byte for so long is begun again
    tries: int = 6
    first_wait: float = 1.0  # doubles with each try
    commit: float = 900.0  # until a registry has checked what was sent
    busy_tries: int = 4
    busy_wait: float = 30.0  # the longest that a server's Retry-After is obeyed

    def wait(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        return self.first_wait * 2.0 ** (failures - 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """How registries are reached: the connections, the key, the proxies, the patience."""

    session: aiohttp.ClientSession
    key: Path
    proxies: Mapping[str, str]
    patience: Patience


class Client:
    """Talks to the registry that a model's name begins with. The token that it is given never goes to another host."""

    def __init__(self, access: Access, name: ModelName, *, insecure: bool) -> None:
        self.access = access
        self.name = name
        self.base = f"{'http' if insecure else 'https'}://{name.host}"
        self._token = ""
        self._signing = asyncio.Lock()

    def url(self, kind: str, reference: str = "") -> URL:
        """Of a part of the model's repository: `manifests/<tag>`, `blobs/<digest>`, `blobs/uploads/`."""
        return parsed(f"{self.base}/v2/{self.name.namespace}/{self.name.model}/{kind}/{reference}")

    @property
    def repository(self) -> str:
        """The address of the model's repository, the same for every tag."""
        return str(self.url("", "")).rstrip("/")

    async def call(
        self, method: str, url: URL, headers: Mapping[str, str] | None = None, body: Body = None, *, stalls: bool = False
    ) -> aiohttp.ClientResponse:
        """An answer below 400, which the caller releases. Gets a token when asked for one, and waits for a busy server.

        `stalls`: the body is large, and the caller watches its progress. Raises RegistryError.
        """
        for attempt in range(self.access.patience.busy_tries):
            response = await self._authorized(method, url, headers or {}, body, stalls=stalls)
            if response.status not in _BUSY or attempt + 1 == self.access.patience.busy_tries:
                break
            wait = self._busy_wait(response, attempt + 1)
            response.close()
            _LOG.info("%s %s: busy (%d), trying again in %.1f s", method, url, response.status, wait)
            await asyncio.sleep(wait)
        if response.status == 404:
            response.close()
            raise NotFound
        if response.status >= 400:
            raise Refused(response.status, await error_text(response))
        return response

    def _busy_wait(self, response: aiohttp.ClientResponse, failures: int) -> float:
        asked = response.headers.get("Retry-After", "")
        patience = self.access.patience
        return min(float(asked), patience.busy_wait) if asked.isascii() and asked.isdigit() else patience.wait(failures)

    async def _authorized(
        self, method: str, url: URL, headers: Mapping[str, str], body: Body, *, stalls: bool
    ) -> aiohttp.ClientResponse:
        """An answer that is no 401; Unauthorized."""
        for _ in range(2):
            token = self._token
            response = await self.send(method, url, headers, body, follow=body is None, stalls=stalls)
            if response.status != 401:
                return response
            asked = response.headers.get("WWW-Authenticate", "")
            response.close()
            async with self._signing:
                if self._token == token:  # nobody else has got a new one meanwhile
                    self._token = await self._new_token(Challenge.parse(asked), _authority(url))
        raise Unauthorized

    async def transfer(
        self, method: str, url: URL, headers: Mapping[str, str], body: Body, *, bare: bool = False
    ) -> aiohttp.ClientResponse:
        """Sends a large body, whose progress the caller watches; the answer, whatever its status, and no redirect followed.

        `bare`: to an address that needs no token.
        """
        if bare:
            return await self.send(method, url, headers, body, bare=True, follow=False, stalls=True)
        return await self._authorized(method, url, headers, body, stalls=True)

    async def _new_token(self, challenge: Challenge, host: str) -> str:
        url, signature = await asyncio.to_thread(challenge.request, self.access.key, host)
        response = await self.send("GET", parsed(url), {"Authorization": signature}, bare=True)
        if response.status >= 400:
            text = await error_text(response)
            raise RegistryError(f"{response.status}: {text}" if text else f"{response.status}")
        data = await read(response, MAX_ERROR)
        try:
            answer = gojson.plain(gojson.loads(data))
        except ValueError as error:
            raise RegistryError(str(error)) from None
        token = answer.get("token") if isinstance(answer, dict) else None
        return token if isinstance(token, str) else ""

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        *,
        bare: bool = False,
        follow: bool = True,
        stalls: bool = False,
    ) -> aiohttp.ClientResponse:
        """One request and its answer, whatever its status. `bare`: without the token. Raises Unreachable."""
        patience = self.access.patience
        limit = None if stalls and body is not None else patience.stall if stalls else patience.answer
        sent = {**self.headers(None if bare else url), "Accept-Encoding": "identity", **(headers or {})}
        times = aiohttp.ClientTimeout(total=None, sock_connect=patience.connect, sock_read=None if stalls else patience.answer)
        try:
            async with asyncio.timeout(limit):
                return await self.access.session.request(
                    method,
                    url,
                    headers=sent,
                    data=body() if callable(body) else body,
                    timeout=times,
                    allow_redirects=follow,
                    proxy=_proxy(url, self.access.proxies),
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(method, str(url), error) from error

    def headers(self, url: URL | None) -> dict[str, str]:
        """What every request says; with the token where it goes to the registry's own host."""
        with_token = self._token and url is not None and _authority(url) == self.name.host
        return {"User-Agent": USER_AGENT, **({"Authorization": f"Bearer {self._token}"} if with_token else {})}

    async def json(self, url: URL) -> tuple[Any, Mapping[str, str]]:
        """The JSON value at an address of the registry's host, and the answer's headers."""
        response = await self.call("GET", url, {"Accept": "application/json"})
        headers = response.headers
        try:
            return gojson.plain(gojson.loads(await read(response, 16 << 20))), headers
        except ValueError as error:
            raise RegistryError(str(error)) from None


async def read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body; RegistryError beyond `limit` bytes or when it breaks off."""
    data = bytearray()
    try:
        async with response:
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > limit:
                    response.close()
                    raise RegistryError(f"the answer of {response.url.host} is longer than {limit} bytes")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unreachable(response.method, str(response.url), error) from error
    return bytes(data)


async def error_text(response: aiohttp.ClientResponse) -> str:
    """What an answer says about its error, cut off where it is too long."""
    try:
        return (await read(response, MAX_ERROR)).decode("utf-8", "replace")
    except RegistryError as error:
        return str(error)


def parsed(text: str) -> URL:
    """The URL of a text that a server or a name gave; RegistryError when it is none."""
    try:
        url, port = URL(text, encoded=True), _port(text)
    except ValueError as error:
        raise RegistryError(f"parse {quote(text)}: {error}") from None
    if not re.fullmatch("[0-9]*", port):
        raise RegistryError(f"parse {quote(text)}: invalid port {quote(f':{port}')} after host")
    if port and int(port) > 0xFFFF:
        raise RegistryError(f"Get {quote(text)}: dial tcp: address {port}: invalid port")
    return url


def _port(text: str) -> str:
    """The port of a URL that names one. `URL` itself looks at it late, and then fails."""
    _, colon, port = urlsplit(text).netloc.rpartition("@")[2].rpartition(":")
    return port if colon and "]" not in port else ""


def _authority(url: URL) -> str:
    """Host and, where the URL names one, port."""
    return url.raw_authority.rpartition("@")[2]


def _proxy(url: URL, proxies: Mapping[str, str]) -> str | None:
    found = proxy_for(Address(url.scheme, url.host or "", url.port or 0), proxies)
    return f"http://{found[0]}:{found[1]}" if found else None
