"""`qwen3next`, `qwen35` and `qwen35moe`: of every few blocks one attends, with a gate; the others are of Gated DeltaNet."""

from __future__ import annotations

from runtime.config import ModelConfig
from runtime.layers.attention import Attention
from runtime.layers.delta_net import DeltaNet
from runtime.layers.feed_forward import FeedForward, MoE
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """`qwen3next`: value heads of one key head stand together."""
    return _build(weights, config, MoE, grouped=True)


def build_35(weights: Weights, config: ModelConfig) -> Transformer:
    """`qwen35`."""
    return _build(weights, config, FeedForward, grouped=False)


def build_35_moe(weights: Weights, config: ModelConfig) -> Transformer:
    """`qwen35moe`."""
    return _build(weights, config, MoE, grouped=False)


def _build(weights: Weights, config: ModelConfig, feed_forward: type[FeedForward] | type[MoE], *, grouped: bool) -> Transformer:
    turn, recurrent = rotation(config.rope, weights), config.recurrent_blocks(period=4)

    def block(layer: int) -> Block:
        mixer = (
            DeltaNet(weights, config, layer, grouped=grouped)
            if recurrent[layer]
            else Attention(weights, config, layer, turn, head_norms=True, gated=True)
        )
        return Block(weights, config, layer, mixer, feed_forward(weights, config, layer), ffn_norm="post_attention_norm")

    return Transformer(weights, config, block)
