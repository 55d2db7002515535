"""`phi3`: Phi 3 to 4 and their small ones: q, k and v lie in one tensor, and so do gates and ups."""

from __future__ import annotations

import dataclasses

from runtime.config import ModelConfig
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import FeedForward
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """A model with two sets of factors for its frequencies has a context that ends where the first set does: the other one would
    change all keys that are in the cache."""
    if "rope_factors_short.weight" in weights and config.rope.original_context:
        config = dataclasses.replace(config, context_length=min(config.context_length, config.rope.original_context))
    turn = rotation(config.rope, weights)

    def block(layer: int) -> Block:
        return Block(weights, config, layer, Attention(weights, config, layer, turn), FeedForward(weights, config, layer))

    return Transformer(weights, config, block)
