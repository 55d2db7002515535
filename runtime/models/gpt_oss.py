"""`gpt-oss`: every other block sees a window; heads have sinks; all layers have biases, those of the experts too."""

from __future__ import annotations

from runtime.config import SOFTMAX_OF_CHOSEN, ModelConfig
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import MoE
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """The norm of its feed-forward layers has the name of another one."""
    turn, windows = rotation(config.rope, weights), config.windows(period=2)

    def block(layer: int) -> Block:
        attention = Attention(weights, config, layer, turn, window=windows[layer])
        experts = MoE(weights, config, layer, normalize=False, gating=SOFTMAX_OF_CHOSEN, activation="swiglu_oai")
        return Block(weights, config, layer, attention, experts, ffn_norm="post_attention_norm")

    return Transformer(weights, config, block)
