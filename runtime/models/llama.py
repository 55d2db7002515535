"""`llama`: Llama 1 to 3, Mistral, and Mixtral (whose blocks have experts)."""

from __future__ import annotations

from runtime.config import ModelConfig
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import FeedForward, MoE
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """Heads turn in neighbouring pairs; the feed-forward layers are experts when the config has any."""
    turn = rotation(config.rope, weights)
    feed_forward = MoE if config.expert_count else FeedForward

    def block(layer: int) -> Block:
        attention = Attention(weights, config, layer, turn, rope_interleaved=True)
        return Block(weights, config, layer, attention, feed_forward(weights, config, layer))

    return Transformer(weights, config, block)
