"""Repositories at Hugging Face whose models lie in several GGUF files, for which their registry interface has no manifest.

The files are found through Hugging Face's own interface, fetched like blobs, and joined to the one file that a store has.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import AsyncGenerator, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from yarl import URL

from ollama_compat.errors import ApiError
from ollama_compat.registry.blobs import Fetcher
from ollama_compat.registry.client import Client
from ollama_compat.registry.errors import NotFound, Refused, RegistryError
from ollama_compat.registry.source import BlobSource
from ollama_compat.schema import CreateRequest
from ollama_compat.store import Making, Store
from ollama_compat.store.create import create

Progress = AsyncGenerator[dict[str, Any], None]

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="next"')
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAGES = 50  # of a list of files
_USUAL = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q8_0")  # which of several quantisations is meant when none is named
_LATEST = "latest"


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """One file of a model: its path in the repository, SHA-256 and size in bytes."""

    path: str
    sha256: str
    size: int


def is_meant(error: Refused) -> bool:
    """Whether a registry refuses a model because it lies in several files."""
    return error.answer == 400 and "sharded" in error.body_text.lower()


async def pull(store: Store, fetcher: Fetcher, client: Client) -> Progress:
    """Goes on with a pull after `pulling manifest`; yields its progress. Raises ApiError."""
    try:
        shards = choose(await _shards(client), client.name.tag)
    except ApiError as error:
        raise RegistryError(f"pull model manifest: {error.message}") from None
    files = {PurePosixPath(shard.path).name: f"sha256:{shard.sha256}" for shard in shards}
    with store.making() as making:
        async with contextlib.aclosing(_fetch(making, fetcher, client, shards)) as parts:
            async for part in parts:
                yield part
        async with contextlib.aclosing(create(store, CreateRequest(model=client.name.full(), files=files))) as steps:
            async for step in steps:
                if step != {"status": "success"}:
                    yield step
    await asyncio.to_thread(store.collect, list(files.values()))  # the joined file has all that is in them
    yield {"status": "success"}


async def _fetch(
    making: Making, fetcher: Fetcher, client: Client, shards: Sequence[Shard]
) -> AsyncGenerator[dict[str, Any], None]:
    for shard in shards:
        source = BlobSource(client, _file_url(client, shard.path), shard.size)
        async with contextlib.aclosing(fetcher.fetch(making, f"sha256:{shard.sha256}", source)) as parts:
            async for part in parts:
                yield part
    yield {"status": "verifying sha256 digest"}


def choose(files: Sequence[Shard], tag: str) -> list[Shard]:
    """The files of the model that a tag means, in order; NotFound when there is none, RegistryError when one is missing."""
    groups: dict[str, list[Shard]] = {}
    for file in files:
        if match := _SHARD.fullmatch(file.path):
            groups.setdefault(match[1], []).append(file)
    stem = _meant(list(groups), tag)
    shards = sorted(groups[stem], key=lambda shard: shard.path)
    count = int(shards[0].path[-len("00001.gguf") : -len(".gguf")])
    if [int(shard.path[len(stem) + 1 : len(stem) + 6]) for shard in shards] != list(range(1, count + 1)):
        raise RegistryError(f"the repository has {len(shards)} of {count} files of {stem}")
    return shards


def _meant(stems: Sequence[str], tag: str) -> str:
    for wanted in (tag,) if tag.lower() != _LATEST else (*_USUAL, ""):
        word = re.compile(rf"(?:^|[-./]){re.escape(wanted)}(?:$|[-./])" if wanted else "", re.IGNORECASE)
        if found := [stem for stem in stems if word.search(stem)]:
            return min(found, key=lambda stem: (len(stem), stem))
    raise NotFound


async def _shards(client: Client) -> list[Shard]:
    """Every file of the repository whose SHA-256 it tells."""
    url: URL | None = URL(f"{client.base}/api/models/{client.name.namespace}/{client.name.model}/tree/main?recursive=true")
    found: list[Shard] = []
    for _ in range(_PAGES):
        if url is None:
            break
        entries, headers = await client.json(url)
        found += [shard for entry in entries if (shard := _shard(entry))] if isinstance(entries, list) else []
        more = _NEXT.search(headers.get("Link", ""))
        url = url.join(URL(more[1])) if more else None
    return found


def _shard(entry: Any) -> Shard | None:
    large = entry.get("lfs") if isinstance(entry, dict) else None
    if not isinstance(large, dict):
        return None
    path, digest, size = entry.get("path"), large.get("oid"), large.get("size")
    if not isinstance(path, str) or not isinstance(size, int) or not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        return None
    return Shard(path, digest, size)


def _file_url(client: Client, path: str) -> URL:
    return URL(f"{client.base}/{client.name.namespace}/{client.name.model}/resolve/main/{quote(path)}", encoded=True)
