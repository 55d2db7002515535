"""`gemma4`, the text models with 26 and 31 billion weights: blocks that see everything have larger heads than those with a
window; values are normed; experts stand beside a dense layer, and their router has a norm of its own."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from runtime.config import ModelConfig
from runtime.core import ModelError
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import FeedForward, MoE
from runtime.layers.norm import RMSNorm
from runtime.layers.ops import Ops, Value
from runtime.layers.rope import rotation
from runtime.models.gemma import Gemma
from runtime.models.transformer import AttentionLayer, Block, Layer, Transformer
from runtime.weights import Weights


class Mixture(MoE):
    """norm(feed_forward(norm x)) + norm(experts(norm x)): what the router sees is normed in a third way."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int) -> None:
        super().__init__(weights, config, layer, activation="gelu")
        blk, width, eps = f"blk.{layer}", config.embedding_length, config.layer_norm_rms_epsilon
        scale = weights.vector(f"{blk}.ffn_gate_inp.scale", width) / np.float32(math.sqrt(width))
        self.router_norm, self.eps = np.ascontiguousarray(scale), eps
        self.dense = FeedForward(weights, config, layer, "gelu")
        self.ffn_norm = RMSNorm(weights, f"{blk}.ffn_norm", width, eps)
        self.pre_ffw_norm_2 = RMSNorm(weights, f"{blk}.pre_ffw_norm_2", width, eps)
        self.post_ffw_norm_1 = RMSNorm(weights, f"{blk}.post_ffw_norm_1", width, eps)
        self.post_ffw_norm_2 = RMSNorm(weights, f"{blk}.post_ffw_norm_2", width, eps)

    def __call__(self, ops: Ops, x: Value) -> Value:
        logits = self.ffn_gate_inp(ops, ops.rms_norm(x, self.router_norm, self.eps))
        routed = ops.experts(self.pre_ffw_norm_2(ops, x), logits, self.experts, self.routing)
        dense = self.post_ffw_norm_1(ops, self.dense(ops, self.ffn_norm(ops, x)))
        return ops.add(dense, self.post_ffw_norm_2(ops, routed))


class Plain:
    """feed_forward(norm x)."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int) -> None:
        self.ffn_norm = RMSNorm(weights, f"blk.{layer}.ffn_norm", config.embedding_length, config.layer_norm_rms_epsilon)
        self.dense = FeedForward(weights, config, layer, "gelu")

    def __call__(self, ops: Ops, x: Value) -> Value:
        return self.dense(ops, self.ffn_norm(ops, x))


class Gemma4Block(Block):
    """x + norm(attention(norm x)), then x + norm(feed_forward(x)), times a number of the block."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int, attention: AttentionLayer, inner: Layer) -> None:
        super().__init__(weights, config, layer, attention, inner)
        blk, width, eps = f"blk.{layer}", config.embedding_length, config.layer_norm_rms_epsilon
        self.post_attention_norm = RMSNorm(weights, f"{blk}.post_attention_norm", width, eps)
        self.post_ffw_norm = RMSNorm(weights, f"{blk}.post_ffw_norm", width, eps)
        scale = f"{blk}.layer_output_scale.weight"
        self.layer_output_scale = float(weights.vector(scale, 1)[0]) if scale in weights else 1.0

    def __call__(self, ops: Ops, x: Value) -> Value:
        x = ops.add(x, self.post_attention_norm(ops, self.attention(ops, self.attn_norm(ops, x))))
        x = ops.add(x, self.post_ffw_norm(ops, self.feed_forward(ops, x)))
        return x if self.layer_output_scale == 1 else ops.scale(x, self.layer_output_scale)


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """Scores have no factor. The frequencies of the larger heads are divided, most of them away. The small models, whose blocks
    have embeddings of their own and share keys, are refused."""
    if "per_layer_token_embd.weight" in weights:
        raise ModelError("a 'gemma4' whose blocks have embeddings of their own is not supported")
    windows, rope = config.windows(period=6), config.rope
    if config.sliding_window_pattern is None:
        raise ModelError("missing key 'gemma4.attention.sliding_window_pattern'")
    base = rope.freq_base_swa or rope.freq_base
    local = dataclasses.replace(rope, freq_base=base, dimensions=rope.dimensions_swa, scaling="none")
    turn, local_turn = rotation(rope, weights), rotation(local, weights, factors=False)

    def block(layer: int) -> Block:
        window = windows[layer]
        keys, values = (config.key_length_swa, config.value_length_swa) if window else (config.key_length, config.value_length)
        own = dataclasses.replace(config, head_count_kv=config.heads_kv[layer], key_length=keys, value_length=values)
        attention = Attention(
            *(weights, own, layer, local_turn if window else turn), head_norms=True, window=window, scale=1.0, value_norm=True
        )
        mixed = f"blk.{layer}.ffn_gate_inp.weight" in weights
        return Gemma4Block(weights, config, layer, attention, (Mixture if mixed else Plain)(weights, config, layer))

    return Gemma(weights, config, block)
