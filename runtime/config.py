"""The facts of a model that its GGUF metadata states, each checked before anything is sized by it."""

from __future__ import annotations

import dataclasses
from typing import Any

from runtime.core import Metadata, ModelError

LARGEST = {"block_count": 1024, "embedding_length": 1 << 17, "context_length": 1 << 27, "vocab": 1 << 22}


@dataclasses.dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions: `dimensions` of each head turn; scaling as llama.cpp's keys say."""

    dimensions: int
    freq_base: float
    scaling: str  # "none", "linear", "yarn"
    factor: float
    original_context: int
    attn_factor: float


@dataclasses.dataclass(frozen=True, slots=True)
class ModelConfig:
    """Field names follow the GGUF keys after the architecture's prefix."""

    architecture: str
    block_count: int
    context_length: int
    embedding_length: int
    feed_forward_length: int
    head_count: int
    head_count_kv: int
    key_length: int
    value_length: int
    layer_norm_rms_epsilon: float  # 0 in a model that norms otherwise
    layer_norm_epsilon: float  # 0 in a model that norms otherwise
    pooling_type: int | None  # how tokens become one vector; None: the model makes text
    token_type_count: int
    expert_count: int
    expert_used_count: int
    expert_feed_forward_length: int
    n_vocab: int
    rope: Rope


class Keys:
    """Typed access to `<architecture>.<key>`; every miss or misfit names the key."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self.architecture = self._text("general.architecture")

    def __contains__(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self._metadata

    def _text(self, key: str) -> str:
        value = self._metadata.get(key)
        if not isinstance(value, str):
            raise ModelError(f"key {key!r} is missing or no string")
        return value

    def text(self, key: str, default: str) -> str:
        """A string, or the default where the key is absent."""
        return self._text(f"{self.architecture}.{key}") if key in self else default

    def count(self, key: str, default: int | None = None, largest: int = 1 << 20) -> int:
        """An integer in [0, largest]; an array of equal values (one a layer) counts as that value."""
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
            raise ModelError(f"key '{self.architecture}.{key}' is {value!r}, expected an integer from 0 to {largest}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e30:
            raise ModelError(f"key '{self.architecture}.{key}' is {value!r}, expected a number")
        return float(value)

    def _value(self, key: str, default: Any) -> Any:
        value = self._metadata.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise ModelError(f"missing key '{self.architecture}.{key}'")
        if not isinstance(value, str | int | float):
            values = set(value)
            if len(values) != 1:
                raise ModelError(f"key '{self.architecture}.{key}' differs between layers, which is not supported")
            (value,) = values
        return value


def read_config(metadata: Metadata, n_vocab: int) -> ModelConfig:
    """The config of a transformer with so many tokens; ModelError names a key that is missing or out of range."""
    keys = Keys(metadata)
    embedding = keys.count("embedding_length", largest=LARGEST["embedding_length"])
    heads = keys.count("attention.head_count", largest=1 << 12)
    if heads == 0 or embedding == 0:
        raise ModelError(f"'{keys.architecture}' without attention heads or embedding is no model that can run")
    kv_heads = keys.count("attention.head_count_kv", heads, largest=1 << 12)
    if kv_heads == 0 or heads % kv_heads:
        raise ModelError(f"{heads} attention heads cannot share {kv_heads} key heads")
    key_length = keys.count("attention.key_length", embedding // heads, largest=1 << 12)
    if not 0 < n_vocab <= LARGEST["vocab"]:
        raise ModelError("key 'tokenizer.ggml.tokens' is missing or empty")
    feed_forward = keys.count("feed_forward_length", 0)
    experts = keys.count("expert_count", 0, largest=1 << 12)
    used = keys.count("expert_used_count", 0, largest=1 << 12)
    if used > experts or (experts and not used):
        raise ModelError(f"{used} of {experts} experts cannot be used")
    return ModelConfig(
        architecture=keys.architecture,
        block_count=keys.count("block_count", largest=LARGEST["block_count"]),
        context_length=keys.count("context_length", largest=LARGEST["context_length"]),
        embedding_length=embedding,
        feed_forward_length=feed_forward,
        head_count=heads,
        head_count_kv=kv_heads,
        key_length=key_length,
        value_length=keys.count("attention.value_length", embedding // heads, largest=1 << 12),
        layer_norm_rms_epsilon=keys.number("attention.layer_norm_rms_epsilon", _absent("layer_norm_epsilon", keys)),
        layer_norm_epsilon=keys.number("attention.layer_norm_epsilon", 0.0),
        pooling_type=keys.count("pooling_type", largest=255) if "pooling_type" in keys else None,
        token_type_count=_token_types(metadata),
        expert_count=experts,
        expert_used_count=used,
        expert_feed_forward_length=keys.count("expert_feed_forward_length", feed_forward),
        n_vocab=n_vocab,
        rope=_read_rope(keys, key_length),
    )


def _absent(other: str, keys: Keys) -> float | None:
    """The default of an epsilon: none may be needed where the file has the other one."""
    return 0.0 if f"attention.{other}" in keys else None


def _token_types(metadata: Metadata) -> int:
    """Rows of `token_types.weight`; the one key of a model's shape that stands with the tokenizer's."""
    count = metadata.get("tokenizer.ggml.token_type_count", 0)
    if not isinstance(count, int) or not 0 <= count <= 1 << 16:
        raise ModelError(f"key 'tokenizer.ggml.token_type_count' is {count!r}, expected a small integer")
    return count


def _read_rope(keys: Keys, key_length: int) -> Rope:
    dimensions = keys.count("rope.dimension_count", key_length, largest=key_length)
    if dimensions % 2:
        raise ModelError(f"key '{keys.architecture}.rope.dimension_count' is odd")
    scaling = keys.text("rope.scaling.type", "linear" if "rope.scale_linear" in keys else "none")
    if scaling not in ("none", "linear", "yarn"):
        raise ModelError(f"key '{keys.architecture}.rope.scaling.type' is {scaling!r}, which is not supported")
    return Rope(
        dimensions=dimensions,
        freq_base=keys.number("rope.freq_base", 10000.0),
        scaling=scaling,
        factor=keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0)),
        original_context=keys.count("rope.scaling.original_context_length", 0, largest=LARGEST["context_length"]),
        attn_factor=keys.number("rope.scaling.attn_factor", 1.0),
    )
