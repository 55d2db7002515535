"""`olmoe` and `minimax-m2`: q and k are normed over all heads at once."""

from __future__ import annotations

from runtime.config import SIGMOID, ModelConfig
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import MoE
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """`olmoe`: the weights of the chosen experts stay as the router has them."""
    turn = rotation(config.rope, weights)

    def block(layer: int) -> Block:
        attention = Attention(weights, config, layer, turn, wide_norms=True)
        return Block(weights, config, layer, attention, MoE(weights, config, layer, normalize=False))

    return Transformer(weights, config, block)


def build_minimax(weights: Weights, config: ModelConfig) -> Transformer:
    """`minimax-m2`: heads turn in part."""
    turn, gating = rotation(config.rope, weights), config.expert_gating_func or SIGMOID

    def block(layer: int) -> Block:
        attention = Attention(weights, config, layer, turn, wide_norms=True)
        return Block(weights, config, layer, attention, MoE(weights, config, layer, gating=gating))

    return Transformer(weights, config, block)
