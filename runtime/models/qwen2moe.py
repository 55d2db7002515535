"""`qwen2moe`: Qwen 1.5 and 2 with experts; q, k and v have biases, and the shared expert has a gate."""

from __future__ import annotations

from runtime.config import ModelConfig
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import MoE
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """The weights of the chosen experts stay as the router has them."""
    turn = rotation(config.rope, weights)

    def block(layer: int) -> Block:
        attention = Attention(weights, config, layer, turn)
        return Block(weights, config, layer, attention, MoE(weights, config, layer, normalize=False))

    return Transformer(weights, config, block)
