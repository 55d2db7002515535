"""Llama, Mistral and Mixtral: all are `llama` in GGUF."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from runtime.convert import metadata
from runtime.convert.config import Config, as_number
from runtime.convert.errors import ConvertError
from runtime.convert.model import DECODER, Model, Recipe, plain, split_fused_experts
from runtime.convert.names import grouped
from runtime.convert.outputs import Output, Piece
from runtime.convert.safetensors import Array

NAMES = dataclasses.replace(
    DECODER,
    layers={
        **DECODER.layers,
        "block_sparse_moe.gate": "ffn_gate_inp",
        "block_sparse_moe.experts.w1": "ffn_gate_exps",
        "block_sparse_moe.experts.w2": "ffn_down_exps",
        "block_sparse_moe.experts.w3": "ffn_up_exps",
        "mlp.gate": "ffn_gate_inp",
        "mlp.experts.gate_up_proj": "ffn_gate_up_exps.weight",
        "mlp.experts.down_proj": "ffn_down_exps.weight",
    },
)
# of `transformers`, which a config need not repeat
_DEFAULTS = {
    "LlamaForCausalLM": {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
    "MistralForCausalLM": {"max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "num_key_value_heads": 8},
    "MixtralForCausalLM": {
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rope_theta": 1e6,
    },
}


def convert(model: Model) -> Recipe:
    """The recipe; ConvertError for a checkpoint that does not fit its config."""
    config = model.config.with_defaults(_DEFAULTS.get(model.name, {}))
    model = dataclasses.replace(model, config=config)
    groups = grouped(NAMES, model.tensors)
    values = metadata.shared(config) | {"vocab_size": config.count("vocab_size"), "rope.dimension_count": config.head_dim}
    outputs = [*rope_factors(config), *split_fused_experts(model, groups, config.count("hidden_size"))]
    return Recipe("llama", values, [*outputs, *plain(model, groups, lambda name: permuted(config, name))])


def permuted(config: Config, name: str) -> Callable[[Array], Array] | None:
    """Queries and keys in the order of GGUF's `llama`, where the pairs that turn together are neighbours."""
    part = name.split(".")[-2]
    heads = {"attn_q": config.heads, "attn_k": config.kv_heads}.get(part)
    return None if heads is None else lambda rows: permute(rows, heads, name)


def permute(rows: Array, heads: int, name: str) -> Array:
    """Halves of each head interleaved: row i of the first half comes before row i of the second."""
    if not heads or rows.shape[0] % (2 * heads):
        raise ConvertError(f"{rows.shape[0]} rows of {name} are no {heads} heads")
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def rope_factors(config: Config) -> Iterator[Output]:
    """Llama 3's scaling of rotary positions: a divisor for each frequency."""
    parameters = metadata.rope_parameters(config)
    if str(parameters["rope_type"]).lower() != "llama3":
        return

    def number(key: str, default: float) -> float:
        found = as_number(parameters.get(key, default))
        if not found or found < 0:
            raise ConvertError(f"parse config.json: rope parameter {key!r} is {parameters.get(key)!r}")
        return found

    base, factor = number("rope_theta", 10000.0), number("factor", 8.0)
    low, high = number("low_freq_factor", 1.0), number("high_freq_factor", 4.0)
    original, dim = number("original_max_position_embeddings", 8192), config.head_dim
    frequencies = 1.0 / np.float32(base) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
    factors = [_factor(2 * math.pi / float(frequency), factor, low, high, original) for frequency in frequencies]
    values = np.array(factors, np.float32)
    yield Output("rope_freqs.weight", values.shape, "F32", [Piece(lambda: values)])


def _factor(wavelength: float, factor: float, low: float, high: float, original: float) -> float:
    """Long waves are stretched, short ones stay, and between them it changes smoothly."""
    if wavelength < original / high:
        return 1.0
    if wavelength > original / low:
        return factor
    smooth = (original / wavelength - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth)
