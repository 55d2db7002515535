"""Putting a model together: the parts that it begins with, then what the request sets, then config and manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from ollama_compat import gotypes
from ollama_compat.errors import BadRequest, InternalError
from ollama_compat.schema import CreateRequest
from ollama_compat.store import Making, Store, gotext, manifests, quantize, sources
from ollama_compat.store.config import ModelConfig
from ollama_compat.store.header import human_number
from ollama_compat.store.names import ModelName
from ollama_compat.store.sources import Part
from ollama_compat.template.gotemplate import Template, TemplateError

# renderer and parser of architectures whose files carry no template that could serve
_BUILT_IN = {
    "gemma4": "gemma4",
    "laguna": "laguna",
    "nemotron_h": "nemotron-3-nano",
    "nemotron_h_moe": "nemotron-3-nano",
    "nemotron_h_omni": "nemotron-3-nano",
}
_STOP = {"gemma4": ["<turn|>"]}


class Assembly:
    """A model in the making. `run`, then `write`."""

    def __init__(self, store: Store, making: Making, request: CreateRequest, config: ModelConfig) -> None:
        self._store = store
        self._making = making
        self._request = request
        self._config = config
        self._parameters = dict(request.parameters or {})
        self._parts: list[Part] = []
        self._dropped: list[str] = []  # digests of blobs that were replaced

    def run(self, parts: list[Part]) -> Iterator[dict[str, Any]]:
        """Takes the parts, sets what the request sets, and tells of every layer."""
        for part in parts:
            yield from self._take(part)
        self._set_texts()
        self._set_licenses()
        self._set_parameters()
        if self._request.messages:
            self._set(manifests.MESSAGES, gotext.json_line(self._request.messages, is_map=False))
        yield from ({"status": part.status} for part in self._parts if part.status)

    def write(self, name: ModelName) -> None:
        """Writes config and manifest: from now on the model is there."""
        config, _ = self._making.add(manifests.CONFIG, self._config.encode())
        self._store.put(name, config, [part.layer for part in self._parts])
        used = {part.layer.digest for part in self._parts}
        self._making.close()
        self._store.collect(digest for digest in self._dropped if digest not in used)

    # ------------------------------------------------------------ the model itself

    def _take(self, part: Part) -> Iterator[dict[str, Any]]:
        level = self._level(part)
        if quantize.needed(part, level):
            matrix = self._request.imatrix if part.layer.media_type == manifests.MODEL else None
            part = yield from quantize.quantized(self._making, part, level, matrix)
        elif part.is_model and part.file and not (part.header and part.header.has_compatibility_tensors):
            yield {"status": "verifying conversion"}
            part = dataclasses.replace(part, layer=dataclasses.replace(part.layer, source=""))
        if part.is_model:
            self._describe(part)
        elif part.layer.media_type == manifests.DRAFT and part.header:
            draft = {"model_format": "gguf", "architecture": part.header.architecture}
            self._config = dataclasses.replace(self._config, draft=draft)
        self._parts.append(part)

    def _level(self, part: Part) -> str:
        """What the request wants the layer quantised to; empty when nothing."""
        if part.layer.media_type == manifests.MODEL:
            level = self._request.quantize or self._request.quantization or quantize.unasked(part)
            return level.upper() if self._request.imatrix else level  # no client of Ollama asks so, see `quantize.target`
        return self._request.draft_quantize if part.layer.media_type == manifests.DRAFT else ""

    def _describe(self, part: Part) -> None:
        """What the model's file says goes into the config."""
        header, config = part.header, self._config
        assert header is not None
        architecture = header.architecture
        self._config = dataclasses.replace(
            config,
            model_format=config.model_format or "gguf",
            model_family=config.model_family or architecture,
            model_type=config.model_type or human_number(header.parameter_count),
            file_type=config.file_type or header.file_type,
            model_families=[*(config.model_families or ()), architecture],
        )
        built_in = _BUILT_IN.get(architecture, "")
        if built_in and not (config.renderer and config.parser):
            renderer, parser = config.renderer or ("" if self._request.template else built_in), config.parser or built_in
            self._config = dataclasses.replace(self._config, renderer=renderer, parser=parser)
            if architecture in _STOP:
                self._parameters.setdefault("stop", _STOP[architecture])

    # ------------------------------------------------------------ what the request sets

    def _set(self, media_type: str, data: bytes) -> None:
        """A layer in the place of those of its kind."""
        self._dropped += [part.layer.digest for part in self._parts if part.layer.media_type == media_type]
        self._parts = [part for part in self._parts if part.layer.media_type != media_type]
        self._add(media_type, data)

    def _add(self, media_type: str, data: bytes) -> None:
        self._parts.append(sources.add(self._making, media_type, data))

    def _set_texts(self) -> None:
        if self._request.template:
            try:
                Template.parse(self._request.template)
            except TemplateError as error:
                raise BadRequest(f"template error: {error.message}") from None
            self._set(manifests.TEMPLATE, self._request.template.encode())
        if self._request.system:
            self._set(manifests.SYSTEM, self._request.system.encode())

    def _set_licenses(self) -> None:
        """Licenses add up."""
        given = self._request.license
        if isinstance(given, str):
            given = [given] if given else []
        if given is None:
            return
        if not isinstance(given, list):
            raise InternalError(f"json: cannot unmarshal {_word(given)} into Go value of type []string")
        for text in given:
            if not isinstance(text, str | None):
                raise InternalError(f"json: cannot unmarshal {_word(text)} into Go value of type string")
            self._add(manifests.LICENSE, (text or "").encode())

    def _set_parameters(self) -> None:
        """Parameters of the request on top of those that are there."""
        merged: dict[str, Any] = {}
        for part in self._parts:
            if part.layer.media_type == manifests.PARAMS:
                merged = self._stored_parameters(part.layer.digest) | merged
        merged |= self._parameters
        if merged:
            self._set(manifests.PARAMS, gotext.json_line(merged))

    def _stored_parameters(self, digest: str) -> dict[str, Any]:
        try:
            value = gotext.read_json(self._store.blobs.read(digest))
        except ValueError as error:
            raise InternalError(f"the model's params are damaged: {error}") from None
        if not isinstance(value, dict | None):
            raise InternalError(f"json: cannot unmarshal {_word(value)} into Go value of type map[string]interface {{}}")
        return value or {}


def _word(value: Any) -> str:
    """What Go calls a JSON value."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return gotypes.word(value)
