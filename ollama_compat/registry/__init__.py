"""Pull and push: Ollama's registry protocol, which is Docker's with an ed25519 key instead of a password."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from ollama_compat import golookup
from ollama_compat.registry.blobs import Fetcher
from ollama_compat.registry.client import Access, Client, Patience
from ollama_compat.registry.pipe import Pipes
from ollama_compat.registry.pull import pull
from ollama_compat.registry.push import push
from ollama_compat.registry.shared import Shared
from ollama_compat.registry.upload import Upload
from ollama_compat.store import Store
from ollama_compat.store.names import ModelName

__all__ = ["Patience", "Registry"]


class _Resolver(aiohttp.ThreadedResolver):
    """Finds nobody by a text that can be no name, where Python would not try."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        with golookup.named(host):
            return await super().resolve(host, port, family)


class Registry:
    """What the server does with registries. Connections are made when the first one is needed."""

    def __init__(self, store: Store, key: Path, proxies: Mapping[str, str], patience: Patience | None = None) -> None:
        self._store, self._key, self._proxies = store, key, proxies
        self._patience = patience or Patience()
        self._fetcher = Fetcher(store, self._patience, Pipes(proxies, self._patience.stall))
        self._uploads: Shared[Upload] = Shared()
        self._session: aiohttp.ClientSession | None = None

    def pull(self, name: ModelName, *, insecure: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        """Fetches a model; yields the progress. Raises ApiError."""
        return pull(self._store, self._fetcher, self._client(name, insecure))

    def push(self, name: ModelName, *, insecure: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        """Publishes a model; yields the progress. Raises ApiError."""
        return push(self._store, self._uploads, self._client(name, insecure))

    def _client(self, name: ModelName, insecure: bool) -> Client:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, resolver=_Resolver()),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        access = Access(self._session, self._key, self._proxies, self._patience)
        return Client(access, name, insecure=insecure)

    async def close(self) -> None:
        """Ends all connections."""
        if self._session is not None:
            await self._session.close()
