"""The config blob of a model: a few words about it, so that lists need not open its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ollama_compat import gojson
from ollama_compat.errors import InternalError
from ollama_compat.store import gotext
from ollama_compat.store.header import ModelHeader, human_number


@dataclasses.dataclass(frozen=True, slots=True)
class ModelConfig:
    """Fields as in the blob and in its order. `remote_*`: a stub that stands for a model on another server."""

    model_format: str = ""
    model_family: str = ""
    model_families: list[str] | None = None
    model_type: str = ""  # the number of parameters, for people
    file_type: str = ""  # the quantisation, for people
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: list[str] | None = None
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""
    draft: dict[str, Any] | None = None
    architecture: str = "amd64"  # of the machine: what the format of container images wants
    os: str = "linux"

    def encode(self) -> bytes:
        """The blob, byte for byte as Ollama writes it."""
        always = ("model_format", "model_family", "model_families", "model_type", "file_type", "architecture", "os")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return gojson.dumps({key: value for key, value in fields.items() if value or key in always}) + b"\n"

    @classmethod
    def of_file(cls, header: ModelHeader) -> ModelConfig:
        """Of a model that is one GGUF file and nothing else."""
        return cls(
            model_format="gguf",
            model_family=header.architecture,
            model_families=[header.architecture],
            model_type=human_number(header.parameter_count),
            file_type=header.file_type,
        )

    @classmethod
    def decode(cls, data: bytes) -> ModelConfig:
        """The config in a blob, which may come from anywhere; what is not known is left out. InternalError when it is none."""
        try:
            body = gotext.read_json(data)
        except ValueError as error:
            raise InternalError(f"the model's config is damaged: {error}") from None
        if not isinstance(body, dict):
            raise InternalError("the model's config is damaged: it is no object")
        got = {}
        for field in dataclasses.fields(cls):
            value = body.get(field.name)
            if value is None:
                continue
            if not _CHECKS[field.name](value):
                raise InternalError(f"the model's config is damaged: {field.name} is of the wrong type")
            got[field.name] = value
        return cls(**got)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_CHECKS: dict[str, Callable[[Any], bool]] = {field.name: _is_text for field in dataclasses.fields(ModelConfig)} | {
    "model_families": _is_texts,
    "capabilities": _is_texts,
    "context_length": _is_count,
    "embedding_length": _is_count,
    "draft": lambda value: isinstance(value, dict),
}
