"""From the name that a client sends to a model of the store."""

from __future__ import annotations

import asyncio

from ollama_compat.errors import ApiError, BadRequest, CloudDisabled, ModelNotFound
from ollama_compat.services import Services
from ollama_compat.store import Store, StoredModel
from ollama_compat.store.default_model import ensure
from ollama_compat.store.names import ModelName, ModelRef, Source

CLOUD_INFERENCE = "ollama cloud is disabled: remote model is unavailable"
CLOUD_DETAILS = "ollama cloud is disabled: remote model details are unavailable"


class NoName(BadRequest):
    """The request names no model; each route says that in its own way."""

    def __init__(self) -> None:
        super().__init__("model is required")


def parse(raw: str) -> ModelRef:
    """The name with its suffix taken off. Raises NoName, or BadRequest for what cannot be a name."""
    if not raw.strip():
        raise NoName
    return ModelRef.parse(raw)


async def find(services: Services, raw: str, cloud: str = CLOUD_INFERENCE) -> StoredModel:
    """The model that the client named. Raises NoName, BadRequest, ModelNotFound, or 403 with the text `cloud`."""
    stored = await find_any(services, raw, cloud)
    if is_stub(stored):
        raise ModelNotFound(raw) if parse(raw).source is Source.LOCAL else ApiError(403, cloud)
    return stored


async def find_any(services: Services, raw: str, cloud: str = CLOUD_INFERENCE) -> StoredModel:
    """As `find`, also what only stands for a model elsewhere."""
    reference = parse(raw)
    if reference.source is Source.CLOUD:
        raise CloudDisabled(cloud)
    return await asyncio.to_thread(_stored, services.store, reference.name, raw)


def is_stub(stored: StoredModel) -> bool:
    """Whether the model stands for one on another server, and has no files here."""
    return bool(stored.config.remote_host and stored.config.remote_model)


def _stored(store: Store, name: ModelName, raw: str) -> StoredModel:
    resolved = resolve(store, name)
    if resolved is None:
        raise ModelNotFound(raw)
    try:
        return store.get(resolved)
    except ModelNotFound:
        raise ModelNotFound(raw) from None


def resolve(store: Store, name: ModelName) -> ModelName | None:
    """The name as it stands in the store; a model that ships with the server is put there when it is asked for."""
    return store.resolve(name) or ensure(store, name)
