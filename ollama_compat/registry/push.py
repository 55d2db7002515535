"""Publishing a model: its blobs, and last its manifest. Progress is told as by Ollama."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator
from typing import Any

from ollama_compat.errors import InternalError
from ollama_compat.registry.blobs import progress
from ollama_compat.registry.client import Client
from ollama_compat.registry.errors import NotFound
from ollama_compat.registry.shared import Shared
from ollama_compat.registry.upload import Upload
from ollama_compat.store import Making, Store, manifests
from ollama_compat.store.manifests import Layer, ManifestError

Progress = dict[str, Any]


async def push(store: Store, uploads: Shared[Upload], client: Client) -> AsyncGenerator[Progress, None]:
    """Yields the progress, the last of it `success`. Raises ApiError with Ollama's words."""
    yield {"status": "retrieving manifest"}
    path = store.manifests.path(client.name)
    try:
        data = await asyncio.to_thread(path.read_bytes)
        manifest = manifests.decode(client.name, data, 0)
    except (OSError, ManifestError) as error:
        yield {"status": "couldn't retrieve manifest"}
        raise _words(error, str(path)) from error
    with store.making() as making:
        for layer in (*manifest.layers, *((manifest.config,) if manifest.config.digest else ())):
            async with contextlib.aclosing(_layer(making, uploads, client, layer)) as parts:
                async for part in parts:
                    yield part
    yield {"status": "pushing manifest"}
    headers = {"Content-Type": manifests.MEDIA_TYPE}
    (await client.call("PUT", client.url("manifests", client.name.tag), headers, data)).close()
    yield {"status": "success"}


def _words(error: OSError | ManifestError, path: str) -> InternalError:
    if isinstance(error, ManifestError):
        return error
    return InternalError(f"open {path}: {(error.strerror or str(error)).lower()}")


async def _layer(making: Making, uploads: Shared[Upload], client: Client, layer: Layer) -> AsyncGenerator[Progress, None]:
    """Sends a blob, unless the registry has it."""
    try:
        (await client.call("HEAD", client.url("blobs", layer.digest))).close()
    except NotFound:
        pass
    else:
        yield progress("pushing", layer.digest, layer.size, layer.size)
        return
    path = making.path(layer.digest)
    size = await asyncio.to_thread(making.hold, layer.digest)
    if size is None:
        raise InternalError(f"stat {path}: no such file or directory")
    begin = functools.partial(Upload, client, layer, path)
    async with contextlib.aclosing(uploads.follow((client.repository, layer.digest), begin)) as parts:
        async for completed, total in parts:
            yield progress("pushing", layer.digest, completed, total)
    yield progress("pushing", layer.digest, size, size)
