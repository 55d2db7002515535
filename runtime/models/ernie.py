"""`ernie4_5-moe` and `dots1`: experts beside a shared one after some dense blocks."""

from __future__ import annotations

from runtime.config import SIGMOID, ModelConfig
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import FeedForward, MoE
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """`ernie4_5-moe`: heads turn in neighbouring pairs; only every so manieth block has experts."""
    turn, step = rotation(config.rope, weights), config.interleave_moe_layer_step or 1

    def block(layer: int) -> Block:
        attention = Attention(weights, config, layer, turn, rope_interleaved=True)
        mixed = layer >= config.leading_dense_block_count and (layer + 1) % step == 0
        inner = MoE(weights, config, layer) if mixed else FeedForward(weights, config, layer)
        return Block(weights, config, layer, attention, inner)

    return Transformer(weights, config, block)


def build_dots(weights: Weights, config: ModelConfig) -> Transformer:
    """`dots1`: q and k are normed by head."""
    turn, gating = rotation(config.rope, weights), config.expert_gating_func or SIGMOID
    normalize = bool(config.expert_weights_norm)

    def block(layer: int) -> Block:
        attention = Attention(weights, config, layer, turn, head_norms=True)
        dense = layer < config.leading_dense_block_count
        inner = FeedForward(weights, config, layer) if dense else MoE(weights, config, layer, normalize=normalize, gating=gating)
        return Block(weights, config, layer, attention, inner)

    return Transformer(weights, config, block)
