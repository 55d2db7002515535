"""`info` of a create request: words about the model that are taken as they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ollama_compat.errors import BadRequest
from ollama_compat.store.config import ModelConfig

_MAX = (1 << 63) - 1


def with_info(config: ModelConfig, info: Mapping[str, Any]) -> ModelConfig:
    """The config with what `info` says; BadRequest for a value of the wrong type."""
    extra = info.get("capabilities")
    if isinstance(extra, list):
        named = [item if isinstance(item, str) else "" for item in extra]
        config = dataclasses.replace(config, capabilities=(config.capabilities or []) + named)
    family = _text(info, "model_family")
    return dataclasses.replace(
        config,
        model_family=family,
        model_families=[family] if family else None,
        base_name=_text(info, "base_name"),
        file_type=_text(info, "quantization_level"),
        model_type=_text(info, "parameter_size"),
        context_length=_count(info, "context_length"),
        embedding_length=_count(info, "embedding_length"),
    )


def _text(info: Mapping[str, Any], key: str) -> str:
    value = info.get(key, "")
    if not isinstance(value, str):
        raise BadRequest(f'info field "{key}" must be a string')
    return value


def _count(info: Mapping[str, Any], key: str) -> int:
    value = info.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f'info field "{key}" must be a number')
    if value < 0 or value != int(value) or value > _MAX:
        raise BadRequest(f'info field "{key}" must be a non-negative integer')
    return int(value)
