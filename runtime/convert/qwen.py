"""Qwen 2 and 3: `qwen2`, `qwen3`, `qwen3moe`; also those that make vectors."""

from __future__ import annotations

import dataclasses

from runtime.convert import metadata
from runtime.convert.model import DECODER, Model, Recipe, plain, split_fused_experts, unchanged
from runtime.convert.names import grouped
from runtime.convert.pooling import pooling

NAMES = dataclasses.replace(
    DECODER,
    layers={
        **DECODER.layers,
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "mlp.gate": "ffn_gate_inp",
        "mlp.experts.gate_proj": "ffn_gate_exps",
        "mlp.experts.up_proj": "ffn_up_exps",
        "mlp.experts.gate_up_proj": "ffn_gate_up_exps.weight",
        "mlp.experts.down_proj": "ffn_down_exps.weight",
        "mlp.experts.gate_up_proj.weight": "ffn_gate_up_exps.weight",
        "mlp.experts.down_proj.weight": "ffn_down_exps.weight",
    },
)
_DEFAULTS = {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6}
_ARCHITECTURES = {"Qwen2ForCausalLM": "qwen2", "Qwen2Model": "qwen2", "Qwen3ForCausalLM": "qwen3", "Qwen3Model": "qwen3"}


def convert(model: Model) -> Recipe:
    """The recipe; ConvertError for a checkpoint that does not fit its config."""
    architecture = _ARCHITECTURES.get(model.name, "qwen3moe")
    config = model.config.with_defaults(_DEFAULTS if architecture == "qwen2" else {**_DEFAULTS, "head_dim": 128})
    groups = grouped(NAMES, model.tensors)
    values = metadata.shared(config) | pooling(model.source)
    if architecture == "qwen3moe":
        values["expert_feed_forward_length"] = config.count("moe_intermediate_size")
    outputs = [*split_fused_experts(model, groups, config.count("hidden_size")), *plain(model, groups, unchanged)]
    return Recipe(architecture, values, outputs)
