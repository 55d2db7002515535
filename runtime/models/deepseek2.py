"""`deepseek2`: DeepSeek V2, V3 and R1, Kimi K2, GLM 4.7 Flash: latent attention, and experts after some dense blocks."""

from __future__ import annotations

import dataclasses
import math

from runtime.config import SIGMOID, SOFTMAX, ModelConfig
from runtime.core import ModelError
from runtime.layers.feed_forward import FeedForward, MoE
from runtime.layers.latent import LatentAttention
from runtime.layers.ops import Rotation
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights

_GLM_FLASH = (47, 48), 154880  # blocks and tokens of a model whose first files do not name their gating


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """Heads turn in neighbouring pairs."""
    if not config.kv_lora_rank or not config.rope.dimensions < config.key_length_mla:
        raise ModelError("'deepseek2' without a latent vector or without a part of its keys that does not turn cannot run")
    turn, scale = _turn_and_scale(weights, config)
    blocks, tokens = _GLM_FLASH
    flash = config.block_count in blocks and config.n_vocab == tokens
    gating = config.expert_gating_func or (SIGMOID if flash else SOFTMAX)

    def block(layer: int) -> Block:
        attention = LatentAttention(weights, config, layer, turn, scale)
        if layer < config.leading_dense_block_count:
            return Block(weights, config, layer, attention, FeedForward(weights, config, layer))
        experts = MoE(weights, config, layer, normalize=bool(config.expert_weights_norm), gating=gating)
        return Block(weights, config, layer, attention, experts)

    return Transformer(weights, config, block)


def _turn_and_scale(weights: Weights, config: ModelConfig) -> tuple[Rotation, float]:
    """How heads turn, and the factor of their scores: what YaRN does to the length of vectors is done to the scores, also to the
    part that does not turn; with `yarn_log_multiplier` by that, and then the turning itself leaves lengths alone."""
    rope, turn = config.rope, rotation(config.rope, weights)
    stretch = math.log(rope.factor) if rope.scaling == "yarn" else 0.0
    longer = rope.attn_factor * (1 + 0.1 * stretch)
    if rope.yarn_log_multiplier:
        turn = dataclasses.replace(turn, magnitude=rope.attn_factor)
        longer = rope.attn_factor * (1 + rope.yarn_log_multiplier * stretch)
    return turn, longer * longer / math.sqrt(config.key_length_mla)
