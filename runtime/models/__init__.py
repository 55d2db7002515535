"""Architectures: one file a family, one line here each."""

from __future__ import annotations

from collections.abc import Callable

from runtime.config import ModelConfig, read_config
from runtime.core import ModelError
from runtime.models import (
    bert,
    deepseek2,
    ernie,
    gemma,
    gemma4,
    glm4moe,
    gpt_oss,
    granite,
    llama,
    olmoe,
    phi3,
    qwen2,
    qwen2moe,
    qwen3,
    qwen3next,
)
from runtime.models.bert import Encoder
from runtime.models.transformer import Transformer
from runtime.weights import Weights

Model = Transformer | Encoder

ARCHITECTURES: dict[str, Callable[[Weights, ModelConfig], Model]] = {
    "bert": bert.build,
    "deepseek2": deepseek2.build,
    "dots1": ernie.build_dots,
    "ernie4_5-moe": ernie.build,
    "gemma2": gemma.build_2,
    "gemma3": gemma.build_3,
    "gemma4": gemma4.build,
    "glm4moe": glm4moe.build,
    "gpt-oss": gpt_oss.build,
    "granite": granite.build,
    "granitemoe": granite.build,
    "llama": llama.build,
    "minimax-m2": olmoe.build_minimax,
    "nomic-bert": bert.build_nomic,
    "olmoe": olmoe.build,
    "phi3": phi3.build,
    "qwen2": qwen2.build,
    "qwen2moe": qwen2moe.build,
    "qwen2vl": qwen2.build,
    "qwen3": qwen3.build,
    "qwen35": qwen3next.build_35,
    "qwen35moe": qwen3next.build_35_moe,
    "qwen3moe": qwen3.build_moe,
    "qwen3next": qwen3next.build,
    "qwen3vl": qwen3.build,
    "qwen3vlmoe": qwen3.build_moe,
}


def build(weights: Weights) -> Transformer:
    """The model that the file's metadata names, to make text; ModelError when it cannot."""
    model = build_any(weights)
    if not isinstance(model, Transformer):
        raise ModelError(f"{model.config.architecture!r} makes no text, and its file has no key 'pooling_type' for vectors")
    return model


def build_any(weights: Weights) -> Model:
    """The model that the file's metadata names; ModelError when it is none of ARCHITECTURES, or not as it should be."""
    name = weights.metadata.get("general.architecture")
    if name not in ARCHITECTURES:
        raise ModelError(f"unknown model architecture: {name!r}")
    return ARCHITECTURES[name](weights, read_config(weights.metadata, weights.n_vocab))
