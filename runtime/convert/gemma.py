"""Gemma 3: `gemma3`, its text model. The vision tower of the larger ones is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from runtime.convert.config import Config, as_number
from runtime.convert.metadata import Values, rope_parameters
from runtime.convert.model import DECODER, Model, Recipe, recipe
from runtime.convert.outputs import to_f32
from runtime.convert.safetensors import Array

NAMES = dataclasses.replace(
    DECODER,
    layers={
        **DECODER.layers,
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
    skipped=("vision_tower.", "multi_modal_projector.", "vision_model."),
)
# of `transformers`, which the published configs of the larger models do not repeat
_DEFAULTS = {
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}


def convert(model: Model) -> Recipe:
    """The recipe; ConvertError for a checkpoint that does not fit its config."""
    config = model.config.with_defaults(_DEFAULTS)
    return recipe(dataclasses.replace(model, config=config), "gemma3", NAMES, _shifted, **_more(config))


def _more(config: Config) -> Values:
    """Two kinds of layers: most see a window and turn with a base of their own."""
    values: Values = {"rope.freq_base": as_number(rope_parameters(config).get("rope_theta")) or 1_000_000.0}
    values["tokenizer.ggml.add_space_prefix"] = False
    inner = config.object("rope_parameters").get("sliding_attention")
    local = inner.get("rope_theta") if isinstance(inner, dict) else config.get("rope_local_base_freq")
    if (base := as_number(local)) is not None:
        values["rope.freq_base_swa"] = base
    if config.get("sliding_window_pattern") != 1 and config.get("sliding_window") is not None:
        values["attention.sliding_window"] = config.count("sliding_window")
    if cap := as_number(config.get("final_logit_softcapping")):
        values["final_logit_softcapping"] = cap
    return values


def _shifted(name: str) -> Callable[[Array], Array] | None:
    """Gemma stores what its norms differ from 1 by."""
    return (lambda weights: to_f32(weights) + 1) if name.endswith("_norm.weight") else None
