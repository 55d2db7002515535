"""`granite` and `granitemoe`: Granite 3: embeddings, scores, what a block adds and logits have factors of their own."""

from __future__ import annotations

from runtime.config import ModelConfig
from runtime.core import ModelError
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import FeedForward, MoE
from runtime.layers.ops import Ops, Value
from runtime.layers.rope import rotation
from runtime.models.transformer import Block, Transformer
from runtime.weights import Weights


class GraniteBlock(Block):
    """x + factor * attention(norm x), then x + factor * feed_forward(norm x)."""

    residual_scale: float

    def __call__(self, ops: Ops, x: Value) -> Value:
        x = ops.add(x, self._scaled(ops, self.attention(ops, self.attn_norm(ops, x))))
        return ops.add(x, self._scaled(ops, self.feed_forward(ops, self.ffn_norm(ops, x))))

    def _scaled(self, ops: Ops, x: Value) -> Value:
        return ops.scale(x, self.residual_scale) if self.residual_scale else x


class Granite(Transformer):
    """Embeddings and logits have factors."""

    def end(self, ops: Ops, x: Value, layers: int) -> Value:
        return ops.scale(super().end(ops, x, layers), 1 / self.config.logit_scale)

    def _embedded(self, ops: Ops) -> Value:
        x, factor = self.token_embd(ops), self.config.embedding_scale
        return ops.scale(x, factor) if factor else x


def build(weights: Weights, config: ModelConfig) -> Transformer:
    """Heads turn in neighbouring pairs; the feed-forward layers are experts when the config has any."""
    if not config.logit_scale:
        raise ModelError(f"key '{config.architecture}.logit_scale' is missing or 0")
    turn, feed_forward = rotation(config.rope, weights), MoE if config.expert_count else FeedForward

    def block(layer: int) -> Block:
        scale = config.attention_scale or None
        attention = Attention(weights, config, layer, turn, rope_interleaved=True, scale=scale)
        block = GraniteBlock(weights, config, layer, attention, feed_forward(weights, config, layer))
        block.residual_scale = config.residual_scale
        return block

    return Granite(weights, config, block)
