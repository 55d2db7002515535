"""Fetching a model: its manifest, its blobs, and last the manifest's place in the store. Progress is told as by Ollama."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from ollama_compat.errors import ApiError
from ollama_compat.registry import sharded
from ollama_compat.registry.blobs import Fetcher
from ollama_compat.registry.client import Client, read
from ollama_compat.registry.errors import Mismatch, Refused, RegistryError
from ollama_compat.registry.source import BlobSource
from ollama_compat.store import Making, Store, manifests
from ollama_compat.store.manifests import Layer, Manifest, ManifestError

Progress = dict[str, Any]

_TENSOR = manifests.IMAGE + "tensor"
_NO_MLX = "this model requires MLX support, but the MLX runtime is not available"


async def pull(store: Store, fetcher: Fetcher, client: Client) -> AsyncGenerator[Progress, None]:
    """Yields the progress, the last of it `success`. Raises ApiError with Ollama's words.

    Whatever goes wrong, and whenever the caller stops listening: the model is there in full or as it was before.
    """
    yield {"status": "pulling manifest"}
    try:
        data = await _manifest(client)
    except Refused as error:
        if not sharded.is_meant(error):
            raise RegistryError(f"pull model manifest: {error.message}") from None
        async with contextlib.aclosing(sharded.pull(store, fetcher, client)) as parts:
            async for part in parts:
                yield part
        return
    except ApiError as error:
        raise RegistryError(f"pull model manifest: {error.message}") from None
    manifest = _checked(client, data)
    with store.making() as making:
        async with contextlib.aclosing(_layers(making, fetcher, client, manifest)) as parts:
            async for part in parts:
                yield part
        yield {"status": "writing manifest"}
        unused = await asyncio.to_thread(store.install, client.name, data)
    if unused and not store.no_prune:
        yield {"status": "removing unused layers"}
        await asyncio.to_thread(store.collect, unused)
    yield {"status": "success"}


async def _manifest(client: Client) -> bytes:
    response = await client.call("GET", client.url("manifests", client.name.tag), {"Accept": manifests.MEDIA_TYPE})
    return await read(response, manifests.MAX_MANIFEST)


def _checked(client: Client, data: bytes) -> Manifest:
    try:
        manifest = manifests.decode(client.name, data, 0)
    except ManifestError as error:
        raise RegistryError(f"pull model manifest: {error.problem}") from None
    if any(layer.media_type == _TENSOR for layer in manifest.layers):
        raise RegistryError(_NO_MLX)
    return manifest


async def _layers(making: Making, fetcher: Fetcher, client: Client, manifest: Manifest) -> AsyncGenerator[Progress, None]:
    try:
        for layer in _all(client, manifest):
            source = BlobSource(client, client.url("blobs", layer.digest), layer.size)
            async with contextlib.aclosing(fetcher.fetch(making, layer.digest, source)) as parts:
                async for part in parts:
                    yield part
    except Mismatch:
        yield {"status": "verifying sha256 digest"}  # Ollama finds it only then
        raise
    yield {"status": "verifying sha256 digest"}


def _all(client: Client, manifest: Manifest) -> Iterator[Layer]:
    """The layers and, where there is one, the config."""
    for layer in manifest.layers:
        if not layer.digest:
            raise RegistryError(f"{client.name.namespace}/{client.name.model}: digest is empty")
        yield layer
    if manifest.config.digest:
        yield manifest.config
