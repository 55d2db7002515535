"""The facts of a model that its GGUF metadata states, each checked before anything is sized by it."""

from __future__ import annotations

import dataclasses
from typing import Any

from runtime.core import Metadata, ModelError

SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN = 1, 2, 3  # `expert_gating_func`
LARGEST = {"block_count": 1024, "embedding_length": 1 << 17, "context_length": 1 << 27, "vocab": 1 << 22}


@dataclasses.dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions: `dimensions` of each head turn; scaling as llama.cpp's keys say."""

    dimensions: int
    freq_base: float
    dimensions_swa: int  # of blocks that see a window
    freq_base_swa: float  # of blocks that see a window; 0: the file does not say
    scaling: str  # "none", "linear", "yarn"
    factor: float
    original_context: int
    attn_factor: float
    beta_fast: float  # YaRN: turns within the original context where its ramp ends and begins
    beta_slow: float
    yarn_log_multiplier: float


@dataclasses.dataclass(frozen=True, slots=True)
class Ssm:
    """Layers that keep a state; 0 everywhere in a model without. Field names follow the keys `<architecture>.ssm.*`."""

    conv_kernel: int
    inner_size: int
    state_size: int
    time_step_rank: int  # value heads
    group_count: int  # key heads


@dataclasses.dataclass(frozen=True, slots=True)
class ModelConfig:
    """Field names follow the GGUF keys after the architecture's prefix."""

    architecture: str
    block_count: int
    context_length: int
    embedding_length: int
    feed_forward_length: int
    head_count: int
    head_count_kv: int  # the most of a block
    heads_kv: tuple[int, ...]  # of each block
    key_length: int
    value_length: int
    key_length_swa: int  # of blocks that see a window
    value_length_swa: int
    kv_lora_rank: int  # values of the latent vector; 0 in a model without
    key_length_mla: int  # of a head of a model with latent vectors
    value_length_mla: int
    layer_norm_rms_epsilon: float  # 0 in a model that norms otherwise
    layer_norm_epsilon: float  # 0 in a model that norms otherwise
    pooling_type: int | None  # how tokens become one vector; None: the model makes text
    token_type_count: int
    expert_count: int
    expert_used_count: int
    expert_feed_forward_length: int
    expert_gating_func: int  # 0: the file does not say
    expert_weights_norm: bool | None  # None: the file does not say
    expert_weights_scale: float
    expert_group_count: int
    expert_group_used_count: int
    leading_dense_block_count: int  # blocks without experts
    sliding_window: int | None  # tokens
    sliding_window_pattern: tuple[bool, ...] | int | None  # which blocks have it: by block, or all but every so manieth
    full_attention_interval: int  # every so manieth block attends, the others keep a state; 0: the file does not say
    recurrent_layers: tuple[bool, ...] | int | None  # which blocks keep a state
    interleave_moe_layer_step: int  # only every so manieth block has experts
    embedding_scale: float  # 0 where the file does not say, and so for the next three
    residual_scale: float
    attention_scale: float
    logit_scale: float
    final_logit_softcapping: float
    attn_logit_softcapping: float
    n_vocab: int
    rope: Rope
    ssm: Ssm

    def windows(self, period: int, default: int = 0) -> list[int]:
        """The window of each block, 0 for none. `period`, `default`: of the architecture, where the file says nothing."""
        window = default if self.sliding_window is None else self.sliding_window
        pattern = period if self.sliding_window_pattern is None else self.sliding_window_pattern
        if isinstance(pattern, int):
            pattern = tuple(pattern == 0 or i % pattern < pattern - 1 for i in range(self.block_count))
        if len(pattern) < self.block_count:
            raise ModelError(f"key '{self.architecture}.attention.sliding_window_pattern' has no entry for some blocks")
        return [window if pattern[i] else 0 for i in range(self.block_count)]

    def recurrent_blocks(self, period: int) -> list[bool]:
        """Which blocks keep a state. `period`: of the architecture, where the file says nothing."""
        pattern, every = self.recurrent_layers, self.full_attention_interval or period
        if not isinstance(pattern, tuple):
            return [(i + 1) % every != 0 for i in range(self.block_count)]
        if len(pattern) < self.block_count:
            raise ModelError(f"key '{self.architecture}.attention.recurrent_layers' has no entry for some blocks")
        return list(pattern[: self.block_count])


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

    def each(self, key: str, count: int, default: int, largest: int) -> tuple[int, ...]:
        """An integer in [0, largest] for each block: the same for all, or an array of at least so many."""
        value = self._metadata.get(f"{self.architecture}.{key}", default)
        values = [value] * count if isinstance(value, str | int | float) else list(value)[:count]
        if len(values) < count or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= largest for n in values):
            raise ModelError(f"key '{self.architecture}.{key}' is {value!r}, expected integers from 0 to {largest}")
        return tuple(values)

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e30:
            raise ModelError(f"key '{self.architecture}.{key}' is {value!r}, expected a number")
        return float(value)

    def flag(self, key: str) -> bool | None:
        """True or false; None where the key is absent."""
        value = self._metadata.get(f"{self.architecture}.{key}")
        if value is not None and not isinstance(value, bool):
            raise ModelError(f"key '{self.architecture}.{key}' is {value!r}, expected true or false")
        return value

    def pattern(self, key: str) -> tuple[bool, ...] | int | None:
        """True or false for each block, or a period; None where the key is absent."""
        value = self._metadata.get(f"{self.architecture}.{key}")
        if value is None or isinstance(value, str | int | float):
            return self.count(key) if key in self else None
        return tuple(bool(item) for item in value)

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
    blocks = keys.count("block_count", largest=LARGEST["block_count"])
    heads = _read_heads(keys, embedding, blocks)
    if not 0 < n_vocab <= LARGEST["vocab"]:
        raise ModelError("key 'tokenizer.ggml.tokens' is missing or empty")
    feed_forward = keys.count("feed_forward_length", 0)
    experts = keys.count("expert_count", 0, largest=1 << 12)
    used = keys.count("expert_used_count", 0, largest=1 << 12)
    if used > experts or (experts and not used):
        raise ModelError(f"{used} of {experts} experts cannot be used")
    more = keys.count("nextn_predict_layers", 0, largest=LARGEST["block_count"])  # blocks that only guess tokens ahead
    return ModelConfig(
        architecture=keys.architecture,
        block_count=max(0, blocks - more),
        context_length=keys.count("context_length", largest=LARGEST["context_length"]),
        embedding_length=embedding,
        feed_forward_length=feed_forward,
        **heads,
        layer_norm_rms_epsilon=keys.number("attention.layer_norm_rms_epsilon", _absent("layer_norm_epsilon", keys)),
        layer_norm_epsilon=keys.number("attention.layer_norm_epsilon", 0.0),
        pooling_type=keys.count("pooling_type", largest=255) if "pooling_type" in keys else None,
        token_type_count=_token_types(metadata),
        expert_count=experts,
        expert_used_count=used,
        expert_feed_forward_length=keys.count("expert_feed_forward_length", feed_forward),
        **_read_routing(keys, experts),
        leading_dense_block_count=keys.count("leading_dense_block_count", 0),
        sliding_window=keys.count("attention.sliding_window", largest=1 << 30) if "attention.sliding_window" in keys else None,
        sliding_window_pattern=keys.pattern("attention.sliding_window_pattern"),
        full_attention_interval=keys.count("full_attention_interval", 0),
        recurrent_layers=keys.pattern("attention.recurrent_layers"),
        interleave_moe_layer_step=keys.count("interleave_moe_layer_step", 0),
        embedding_scale=keys.number("embedding_scale", 0.0),
        residual_scale=keys.number("residual_scale", 0.0),
        attention_scale=keys.number("attention.scale", 0.0),
        logit_scale=keys.number("logit_scale", 0.0),
        final_logit_softcapping=keys.number("final_logit_softcapping", 0.0),
        attn_logit_softcapping=keys.number("attn_logit_softcapping", 0.0),
        n_vocab=n_vocab,
        rope=_read_rope(keys, heads["key_length"]),
        ssm=Ssm(*(keys.count(f"ssm.{field.name}", 0, largest=1 << 17) for field in dataclasses.fields(Ssm))),
    )


def _read_heads(keys: Keys, embedding: int, blocks: int) -> dict[str, Any]:
    """How many heads attention has, and how long they are."""
    heads = keys.count("attention.head_count", largest=1 << 12)
    if heads == 0 or embedding == 0:
        raise ModelError(f"'{keys.architecture}' without attention heads or embedding is no model that can run")
    heads_kv = keys.each("attention.head_count_kv", blocks, heads, largest=1 << 12)
    for kv_heads in heads_kv:
        if kv_heads == 0 or heads % kv_heads:
            raise ModelError(f"{heads} attention heads cannot share {kv_heads} key heads")
    key_length = keys.count("attention.key_length", embedding // heads, largest=1 << 12)
    value_length = keys.count("attention.value_length", embedding // heads, largest=1 << 12)
    return {
        "head_count": heads,
        "head_count_kv": max(heads_kv, default=heads),
        "heads_kv": heads_kv,
        "key_length": key_length,
        "value_length": value_length,
        "key_length_swa": keys.count("attention.key_length_swa", key_length, largest=1 << 12),
        "value_length_swa": keys.count("attention.value_length_swa", value_length, largest=1 << 12),
        "kv_lora_rank": keys.count("attention.kv_lora_rank", 0, largest=1 << 16),
        "key_length_mla": keys.count("attention.key_length_mla", key_length, largest=1 << 12),
        "value_length_mla": keys.count("attention.value_length_mla", value_length, largest=1 << 12),
    }


def _read_routing(keys: Keys, experts: int) -> dict[str, Any]:
    """How experts are chosen and weighted."""
    groups = keys.count("expert_group_count", 0) or 1
    used = keys.count("expert_group_used_count", 0) or groups
    if experts % groups or used > groups or (groups > 1 and experts // groups < 2):
        raise ModelError(f"{experts} experts cannot be in {groups} groups of which {used} count")
    if keys.count("expert_used_count", 0, largest=1 << 12) > experts // groups * used:
        raise ModelError(f"{used} of {groups} groups have fewer experts than a token uses")
    return {
        "expert_gating_func": keys.count("expert_gating_func", 0, largest=255),
        "expert_weights_norm": keys.flag("expert_weights_norm"),
        "expert_weights_scale": keys.number("expert_weights_scale", 0.0) or 1.0,
        "expert_group_count": groups,
        "expert_group_used_count": used,
    }


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
    if scaling == "longrope":  # a matter of the factors in the file
        scaling = "none"
    if scaling not in ("none", "linear", "yarn"):
        raise ModelError(f"key '{keys.architecture}.rope.scaling.type' is {scaling!r}, which is not supported")
    return Rope(
        dimensions=dimensions,
        dimensions_swa=keys.count("rope.dimension_count_swa", dimensions, largest=1 << 12),
        freq_base=keys.number("rope.freq_base", 10000.0),
        freq_base_swa=keys.number("rope.freq_base_swa", 0.0),
        scaling=scaling,
        factor=keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0)),
        original_context=keys.count("rope.scaling.original_context_length", 0, largest=LARGEST["context_length"]),
        attn_factor=keys.number("rope.scaling.attn_factor", 1.0),
        beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0),
        yarn_log_multiplier=keys.number("rope.scaling.yarn_log_multiplier", 0.0),
    )
