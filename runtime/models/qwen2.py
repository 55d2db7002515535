"""`qwen2`: Qwen 1.5 to 2.5; q, k and v have biases."""

from __future__ import annotations

from runtime.config import ModelConfig
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import FeedForward
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """A dense transformer whose head halves turn together."""
    turn = rotation(config.rope, weights)

    def block(layer: int) -> Block:
        return Block(weights, config, layer, Attention(weights, config, layer, turn), FeedForward(weights, config, layer))

    return Transformer(weights, config, block)
