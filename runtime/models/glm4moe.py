"""`glm4moe`: GLM 4.5 to 4.7 and their Airs: experts beside a shared one after some dense blocks; heads turn in part."""

from __future__ import annotations

from runtime.config import SIGMOID, ModelConfig
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import FeedForward, MoE
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """The large ones norm q and k by head. The norm of the feed-forward layers has the name of another one."""
    turn, gating = rotation(config.rope, weights), config.expert_gating_func or SIGMOID
    normalize = bool(config.expert_weights_norm)

    def block(layer: int) -> Block:
        attention = Attention(weights, config, layer, turn, head_norms=f"blk.{layer}.attn_q_norm.weight" in weights)
        dense = layer < config.leading_dense_block_count
        inner = FeedForward(weights, config, layer) if dense else MoE(weights, config, layer, normalize=normalize, gating=gating)
        return Block(weights, config, layer, attention, inner, ffn_norm="post_attention_norm")

    return Transformer(weights, config, block)
