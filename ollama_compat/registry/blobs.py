"""Blobs for models in the making: those of the store that are right, and the others fetched, each once for all who want it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator
from typing import Any

from ollama_compat.registry.client import Patience
from ollama_compat.registry.download import Download, Source
from ollama_compat.registry.pipe import Pipes
from ollama_compat.registry.shared import Shared
from ollama_compat.store import Making, Store


class Fetcher:
    """The downloads of one store."""

    def __init__(self, store: Store, patience: Patience, pipes: Pipes) -> None:
        self._store, self._patience, self._pipes = store, patience, pipes
        self._downloads: Shared[Download] = Shared()

    async def fetch(self, making: Making, digest: str, source: Source) -> AsyncGenerator[dict[str, Any], None]:
        """Progress until the blob is in the store, right, and held by `making`."""
        if not await asyncio.to_thread(making.keep, digest):
            async with contextlib.aclosing(self._download(digest, source)) as parts:
                async for completed, total in parts:
                    yield progress("pulling", digest, completed, total)
        size = (await asyncio.to_thread(making.path(digest).stat)).st_size
        yield progress("pulling", digest, size, size)

    def _download(self, digest: str, source: Source) -> AsyncGenerator[tuple[int, int], None]:
        key = self._store.blob_path(digest)
        begin = functools.partial(Download, self._store.blobs, digest, source, self._patience, self._pipes)
        return self._downloads.follow(key, begin)


def progress(verb: str, digest: str, completed: int, total: int) -> dict[str, Any]:
    """One line about one blob; zeros are left out."""
    line = {"status": f"{verb} {digest[7:19]}", "digest": digest, "total": total, "completed": completed}
    return {key: value for key, value in line.items() if value}
