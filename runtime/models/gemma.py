"""`gemma2` and `gemma3`, the text models: most blocks see a window, and what a block adds is normed too."""

from __future__ import annotations

import dataclasses
import math

from runtime.config import ModelConfig
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import FeedForward
from runtime.layers.norm import RMSNorm
from runtime.layers.ops import Ops, Rotation, Value
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights

_BASE_IN_WINDOW = 10000.0  # of the blocks that see a window, where the file says nothing
_WINDOW = 4096  # of Gemma 2, where the file says nothing
_LARGEST = {"gemma2": 46, "gemma3": 62}  # blocks of the models with 27 billion weights, whose scores have a scale of their own


class GemmaBlock(Block):
    """x + norm(attention(norm x)), then x + norm(feed_forward(norm x))."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int, attention: Attention) -> None:
        super().__init__(weights, config, layer, attention, FeedForward(weights, config, layer, "gelu"))
        width, eps = config.embedding_length, config.layer_norm_rms_epsilon
        self.post_attention_norm = RMSNorm(weights, f"blk.{layer}.post_attention_norm", width, eps)
        self.post_ffw_norm = RMSNorm(weights, f"blk.{layer}.post_ffw_norm", width, eps)

    def __call__(self, ops: Ops, x: Value) -> Value:
        x = ops.add(x, self.post_attention_norm(ops, self.attention(ops, self.attn_norm(ops, x))))
        return ops.add(x, self.post_ffw_norm(ops, self.feed_forward(ops, self.ffn_norm(ops, x))))


class Gemma(Transformer):
    """Embeddings are scaled by the root of their width, and logits may be kept within bounds."""

    def end(self, ops: Ops, x: Value, layers: int) -> Value:
        logits = super().end(ops, x, layers)
        cap = self.config.final_logit_softcapping
        return ops.softcap(logits, cap) if cap else logits

    def _embedded(self, ops: Ops) -> Value:
        return ops.scale(self.token_embd(ops), math.sqrt(self.config.embedding_length))


def build_2(weights: Weights, config: ModelConfig) -> Transformer:
    """`gemma2`: every other block sees a window, and scores are kept within bounds."""
    logits, scores = config.final_logit_softcapping or 30.0, config.attn_logit_softcapping or 50.0
    config = dataclasses.replace(config, final_logit_softcapping=logits)
    turn, windows = rotation(config.rope, weights), config.windows(2, _WINDOW)
    return _build(weights, config, windows, turn, turn, head_norms=False, softcap=scores)


def build_3(weights: Weights, config: ModelConfig) -> Transformer:
    """`gemma3`: five of six blocks see a window, and turn with a base of their own."""
    rope = config.rope
    local = dataclasses.replace(rope, freq_base=rope.freq_base_swa or _BASE_IN_WINDOW, scaling="none")
    windows = config.windows(period=6)
    return _build(weights, config, windows, rotation(rope, weights), rotation(local, weights), head_norms=True)


def _build(
    weights: Weights,
    config: ModelConfig,
    windows: list[int],
    turn: Rotation,
    local: Rotation,
    *,
    head_norms: bool,
    softcap: float = 0.0,
) -> Transformer:
    largest = config.block_count == _LARGEST[config.architecture]
    scale = 1 / math.sqrt(config.embedding_length // config.head_count if largest else config.key_length)

    def block(layer: int) -> Block:
        window = windows[layer]
        attention = Attention(
            weights,
            config,
            layer,
            local if window else turn,
            head_norms=head_norms,
            window=window,
            softcap=softcap,
            scale=scale,
        )
        return GemmaBlock(weights, config, layer, attention)

    return Gemma(weights, config, block)
