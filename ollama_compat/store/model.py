"""A model of the store: its manifest, and what its small blobs and the header of its file say."""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any

from ollama_compat.errors import InternalError
from ollama_compat.store import capabilities as caps
from ollama_compat.store import gotext, manifests
from ollama_compat.store.blobs import Blobs
from ollama_compat.store.config import ModelConfig
from ollama_compat.store.header import UNKNOWN, ModelHeader
from ollama_compat.store.manifests import Layer, Manifest
from ollama_compat.store.names import ModelName
from runtime.gguf_file import GGUFError

_LOG = logging.getLogger(__name__)

DEFAULT_TEMPLATE = "{{ .Prompt }}"


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """A model as it was when it was read. Blobs never change, so neither does this; the file's header is read when asked for."""

    manifest: Manifest
    config: ModelConfig
    model_path: Path | None
    adapter_paths: list[Path]
    projector_paths: list[Path]
    draft_path: Path | None
    parent: str  # the model or file that the model layer was taken from
    template: str | None  # of Go's kind
    system: str
    params: dict[str, Any]
    messages: list[dict[str, Any]]
    licenses: list[str]
    go_template: bool | None  # OLLAMA_GO_TEMPLATE; None: the better one of two templates

    @property
    def name(self) -> ModelName:
        """As it is written on disk."""
        return self.manifest.name

    @property
    def digest(self) -> str:
        """64 hex digits: the model's identity."""
        return self.manifest.digest

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return self.manifest.size

    @property
    def modified_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return self.manifest.modified_ns

    @property
    def is_remote(self) -> bool:
        """Whether it only stands for a model on another server."""
        return bool(self.config.remote_host or self.config.remote_model)

    @functools.cached_property
    def header(self) -> ModelHeader | None:
        """Of the model's file; None when there is none, or none that can be read."""
        if self.model_path is None or self.config.model_format not in ("", "gguf"):
            return None
        return _read_header(self.model_path)

    @property
    def chat_template(self) -> str | None:
        """The Jinja template in the model's file."""
        return (self.header.chat_template or None) if self.header else None

    @functools.cached_property
    def go(self) -> caps.GoTemplate:
        """Facts of the Go template, or of the one that stands in where there is none."""
        return caps.GoTemplate.of(DEFAULT_TEMPLATE if self.template is None else self.template)

    @functools.cached_property
    def prompt_source(self) -> str:
        """What prompts of conversations are made with: `builtin` (a renderer or parser is named), `harmony`, `go` or `jinja`.

        `jinja` is said as well of a model that has no template at all.
        """
        if self.config.renderer or self.config.parser:
            return "builtin"
        if caps.uses_harmony(self.config, self.go.source):
            return "harmony"
        return "go" if self._uses_go else "jinja"

    @property
    def _uses_go(self) -> bool:
        if self.template is None:
            return False
        if self.go_template is not None:
            return self.go_template
        settled = self.config.renderer or self.config.parser or caps.uses_harmony(self.config, self.go.source)
        return bool(settled) or not self.chat_template or not caps.prefer_jinja(self.chat_template, self.go)

    def capabilities(self) -> list[str]:
        """What it can do: completion, tools, insert, vision, embedding, thinking, ..."""
        return list(self._capabilities)

    @functools.cached_property
    def _capabilities(self) -> list[str]:
        jinja = (self.chat_template or "") if self.prompt_source == "jinja" else ""
        go = self.go if self.template is None or self._uses_go else None
        return caps.of_model(self.config, self.header, [_read_header(path) for path in self.projector_paths], jinja, go)

    @property
    def shown_template(self) -> str:
        """The template that prompts are made with, as /api/show tells it."""
        if self.prompt_source == "jinja" and self.chat_template:
            return self.chat_template
        return self.go.source

    def details(self) -> dict[str, Any]:
        """`details` of /api/show."""
        config, level = self.config, self.config.file_type
        if level in ("", UNKNOWN) and self.header and self.header.file_type != UNKNOWN:
            level = self.header.file_type
        return {
            "parent_model": self.parent,
            "format": config.model_format,
            "family": config.model_family,
            "families": config.model_families,
            "parameter_size": config.model_type,
            "quantization_level": level,
        }

    @functools.cached_property
    def _list_entry(self) -> dict[str, Any]:
        config, header = self.config, None if self.is_remote else self.header
        details = self.details() | {"quantization_level": config.file_type}
        lengths = {"context_length": config.context_length, "embedding_length": config.embedding_length}
        if header:
            seen = caps.keys_for_lists(header)
            lengths = {key: n or (header.count(key) if header.key(key) in seen else 0) for key, n in lengths.items()}
            if config.file_type in ("", UNKNOWN) and "general.file_type" in seen:
                details["quantization_level"] = header.named_file_type or config.file_type
        remote = {"remote_model": config.remote_model, "remote_host": config.remote_host}
        found = caps.of_list_entry(config, header, bool(self.projector_paths), self.go)
        return {
            "remote": {key: value for key, value in remote.items() if value},
            "details": details | {key: value for key, value in lengths.items() if value},
            "capabilities": {"capabilities": found} if found else {},
        }

    def list_entry(self, modified_at: str) -> dict[str, Any]:
        """The model's object in /api/tags."""
        short, entry = self.name.short(), self._list_entry
        head = {"name": short, "model": short, **entry["remote"], "modified_at": modified_at, "size": self.size}
        return {**head, "digest": self.digest, "details": entry["details"], **entry["capabilities"]}


def _read_header(path: Path) -> ModelHeader | None:
    try:
        return ModelHeader.read(path)
    except (OSError, GGUFError) as error:
        _LOG.error("couldn't open model file: %s", error)
        return None


def load(blobs: Blobs, manifest: Manifest, go_template: bool | None) -> StoredModel:
    """Reads the small blobs of a model. FileNotFoundError when one is missing, InternalError when one is damaged."""
    of = functools.partial(_layers, manifest)
    paths = {kind: [blobs.path(layer.digest) for layer in of(kind)] for kind in _FILES}
    texts = {kind: [_text(blobs, layer) for layer in of(kind)] for kind in (manifests.SYSTEM, manifests.LICENSE)}
    templates = [_text(blobs, layer) for layer in of(manifests.TEMPLATE, manifests.PROMPT)]
    models = of(manifests.MODEL)
    return StoredModel(
        manifest=manifest,
        config=ModelConfig.decode(blobs.read(manifest.config.digest)) if manifest.config.digest else ModelConfig(),
        model_path=paths[manifests.MODEL][-1] if models else None,
        adapter_paths=paths[manifests.ADAPTER],
        projector_paths=paths[manifests.PROJECTOR],
        draft_path=paths[manifests.DRAFT][-1] if paths[manifests.DRAFT] else None,
        parent=models[-1].source if models else "",
        template=templates[-1] if templates else None,
        system=texts[manifests.SYSTEM][-1] if texts[manifests.SYSTEM] else "",
        params=_params(blobs, of(manifests.PARAMS)),
        messages=_messages(blobs, of(manifests.MESSAGES)),
        licenses=texts[manifests.LICENSE],
        go_template=go_template,
    )


_FILES = (manifests.MODEL, manifests.ADAPTER, manifests.PROJECTOR, manifests.DRAFT)


def _layers(manifest: Manifest, *kinds: str) -> list[Layer]:
    return [layer for layer in manifest.layers if layer.media_type in kinds]


def _text(blobs: Blobs, layer: Layer) -> str:
    return blobs.read(layer.digest).decode("utf-8", "replace")


def _json(blobs: Blobs, layer: Layer) -> Any:
    try:
        return gotext.read_json(blobs.read(layer.digest))
    except ValueError as error:
        what = layer.media_type.rpartition(".")[2]
        raise InternalError(f"the model's {what} are damaged: {error}") from None


def _params(blobs: Blobs, layers: list[Layer]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        value = _json(blobs, layer) or {}
        if not isinstance(value, dict):
            raise InternalError("the model's params are damaged: they are no object")
        merged |= value
    return merged


def _messages(blobs: Blobs, layers: list[Layer]) -> list[dict[str, Any]]:
    value = (_json(blobs, layers[-1]) or []) if layers else []
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise InternalError("the model's messages are damaged: they are no list of messages")
    plain = ("role", "content", "thinking")
    for message in value:
        if not all(isinstance(message.get(key, ""), str) for key in plain):
            raise InternalError("the model's messages are damaged: a message has a field of the wrong type")
    return [message | {"role": message.get("role", "").lower(), "content": message.get("content", "")} for message in value]
