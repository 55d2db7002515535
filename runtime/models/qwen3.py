"""`qwen3` and `qwen3moe`: q and k are normed by head; the feed-forward layers are dense or experts."""

from __future__ import annotations

from runtime.config import ModelConfig
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import FeedForward, MoE
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """`qwen3`."""
    return _build(weights, config, FeedForward)


def build_moe(weights: Weights, config: ModelConfig) -> Transformer:
    """`qwen3moe`."""
    return _build(weights, config, MoE)


def _build(weights: Weights, config: ModelConfig, feed_forward: type[FeedForward] | type[MoE]) -> Transformer:
    turn = rotation(config.rope, weights)

    def block(layer: int) -> Block:
        attention = Attention(weights, config, layer, turn, head_norms=True)
        return Block(weights, config, layer, attention, feed_forward(weights, config, layer))

    return Transformer(weights, config, block)
