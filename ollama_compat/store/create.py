"""POST /api/create: a new model from uploaded files or from a model of the store, told line by line in Ollama's order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from ollama_compat.errors import ApiError, BadRequest, InternalError, InvalidModelName, ModelNotFound
from ollama_compat.schema import CreateRequest
from ollama_compat.store import Making, Store, convert, default_model, manifests, sources, split
from ollama_compat.store.assembly import Assembly
from ollama_compat.store.config import ModelConfig
from ollama_compat.store.create_info import with_info
from ollama_compat.store.names import ModelName, ModelRef, Source
from ollama_compat.store.remote import CLOUD, remote_url
from ollama_compat.store.sources import Part, Steps

Pull = Callable[[ModelName], AsyncGenerator[dict[str, Any], None]]

_NOT_CONVERTED = "drafts are taken as GGUF only; convert them first (llama.cpp's convert_hf_to_gguf.py)"


async def create(store: Store, request: CreateRequest, pull: Pull | None = None) -> AsyncGenerator[dict[str, Any], None]:
    """Makes the model and yields its progress; the last line is `success`. Raises ApiError with Ollama's words.

    `pull` fetches the model that it is made from, when that is missing.

    Whatever goes wrong, and whenever the caller stops listening: the model is there in full or as it was before.
    """
    name = check(request)
    missing = await asyncio.to_thread(_missing, store, request) if pull else None
    if pull and missing:
        async with contextlib.aclosing(pull(missing)) as pulling:
            async for told in pulling:
                yield told
    steps = _Steps(_make(store, request, name))
    try:
        while (progress := await asyncio.to_thread(steps.next)) is not None:
            yield progress
    finally:
        await asyncio.to_thread(steps.close)


class _Steps:
    """A generator that runs in threads. Closing it waits for a step that a cancelled caller has left running."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._lock = threading.Lock()

    def next(self) -> dict[str, Any] | None:
        with self._lock:
            return next(self._steps, None)

    def close(self) -> None:
        with self._lock:
            self._steps.close()


def check(request: CreateRequest) -> ModelName:
    """The model's name; BadRequest for what is wrong in the request by itself."""
    for files in (request.files, request.draft_files, request.imatrix):
        _check_files(files or {})
    if request.imatrix is not None and (len(request.imatrix) != 1 or not (request.quantize or request.quantization)):
        raise BadRequest("imatrix takes one file, and goes with quantize")
    if request.draft_quantize and not request.draft_files:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    if not all((request.adapters or {}).values()):
        raise BadRequest("invalid digest format")
    return ModelName.parse(request.model or request.name)


def _check_files(files: Mapping[str, str | None]) -> None:
    for path, digest in files.items():
        if path != "." and not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise BadRequest("file path must be relative")
        if not digest:
            raise BadRequest("invalid digest format")


def _make(store: Store, request: CreateRequest, name: ModelName) -> Steps:
    name = store.canonical(name)
    config = ModelConfig(renderer=request.renderer, parser=request.parser, requires=request.requires)
    with store.making() as making:
        config, parts = yield from _base(store, making, request, config)
        if config.remote_host and request.draft_files:
            raise BadRequest("DRAFT cannot be used with remote models")
        if not config.remote_host:
            parts += yield from _additions(making, request, parts)
        config = with_info(config, request.info or {})
        assembly = Assembly(store, making, request, config)
        yield from assembly.run(parts)
        yield {"status": "writing manifest"}
        assembly.write(name)
    yield {"status": "success"}


def _base(store: Store, making: Making, request: CreateRequest, config: ModelConfig) -> Steps:
    """The config and the parts that the model begins with."""
    if request.from_:
        return _from(store, making, request, config)
    if request.files is None:
        raise BadRequest("neither 'from' or 'files' was specified")
    return config, (yield from _import(making, request.files, level=request.quantize or request.quantization))


def _missing(store: Store, request: CreateRequest) -> ModelName | None:
    """The model to make another one from, when it has to be pulled first."""
    if not request.from_ or request.remote_host:
        return None
    try:
        ref = ModelRef.parse(request.from_)
    except BadRequest:
        return None  # told later, by whoever needs it
    here = ref.source is Source.CLOUD or store.resolve(ref.name) or default_model.ensure(store, ref.name)
    return None if here else ref.name


def _from(store: Store, making: Making, request: CreateRequest, config: ModelConfig) -> tuple[ModelConfig, list[Part]]:
    try:
        ref = ModelRef.parse(request.from_)
    except BadRequest:
        raise InvalidModelName from None
    host = request.remote_host or (CLOUD if ref.source is Source.CLOUD else "")
    if host:
        return dataclasses.replace(config, remote_model=ref.base, remote_host=remote_url(host)), []
    name = store.resolve(ref.name) or default_model.ensure(store, ref.name)
    if name is None:
        raise InternalError(f"{ref.name.short()} is not on this machine")
    try:
        base = store.get(name)
    except ModelNotFound:
        raise InternalError(f"{name.short()} was removed in the meantime") from None
    # capabilities and such that the base states itself stay; what its file says is found anew
    # and a template that the user writes goes before a renderer of the base, which Ollama would use all the same
    inherited = ("parser", "requires", "model_format", "capabilities", *(() if request.template else ("renderer",)))
    config = dataclasses.replace(config, **{key: getattr(config, key) or getattr(base.config, key) for key in inherited})
    return config, sources.from_model(making, base.manifest)


def _import(making: Making, files: Mapping[str, str], media_type: str = "", *, level: str = "") -> Steps:
    if sources.kind(making, files) == "safetensors":
        if media_type:
            raise ApiError(501, _NOT_CONVERTED)
        parts = [(yield from convert.converted(making, files, level))]
    else:
        parts = yield from sources.from_files(making, files, media_type)
        parts = yield from split.join(making, parts)
    return parts if media_type == manifests.DRAFT else parts + sources.detected(making, parts)


def _adapters(making: Making, files: Mapping[str, str], base: list[Part]) -> Steps:
    if sources.kind(making, files) == "safetensors":
        return [(yield from convert.adapted(making, files, base))]
    parts = yield from sources.from_files(making, files, single=True)
    return (yield from split.join(making, parts))


def _additions(making: Making, request: CreateRequest, base: list[Part]) -> Steps:
    """Adapters and drafts. Whatever is wrong with them is the client's fault."""
    parts: list[Part] = []
    try:
        drafts: list[Part] = []
        if request.draft_files is not None:
            drafts = yield from _import(making, request.draft_files, manifests.DRAFT)
        if request.adapters is not None:
            parts += yield from _adapters(making, request.adapters, base)
    except InternalError as error:
        raise BadRequest(error.message) from None
    return parts + drafts
