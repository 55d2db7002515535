"""`bert` and `nomic-bert`: encoders, whose tokens see their whole text and which make no text of their own."""

from __future__ import annotations

from runtime.config import ModelConfig
from runtime.core import ModelError
from runtime.layers.attention import Attention
from runtime.layers.feed_forward import FeedForward, GeluFeedForward
from runtime.layers.linear import Embedding
from runtime.layers.norm import LayerNorm
from runtime.layers.ops import Ops, Rotation, Value
from runtime.layers.rope import rotation
from runtime.weights import Weights


class Block:
    """norm(x + attention(x)), then norm(x + feed_forward(x))."""

    def __init__(
        self,
        weights: Weights,
        config: ModelConfig,
        layer: int,
        turn: Rotation | None,
        feed_forward: type[FeedForward] | type[GeluFeedForward],
    ) -> None:
        width, eps = config.embedding_length, config.layer_norm_epsilon
        self.attention = Attention(weights, config, layer, turn, causal=False)
        self.attn_output_norm = LayerNorm(weights, f"blk.{layer}.attn_output_norm", width, eps)
        self.feed_forward = feed_forward(weights, config, layer)
        self.layer_output_norm = LayerNorm(weights, f"blk.{layer}.layer_output_norm", width, eps)

    def __call__(self, ops: Ops, x: Value) -> Value:
        x = self.attn_output_norm(ops, ops.add(x, self.attention(ops, x)))
        return self.layer_output_norm(ops, ops.add(x, self.feed_forward(ops, x)))


class Encoder:
    """The sum of several embeddings of each token, normed, then blocks."""

    def __init__(self, weights: Weights, config: ModelConfig, tables: list[Embedding], blocks: list[Block]) -> None:
        self.config = config
        self.tables = tables
        self.token_embd_norm = LayerNorm(weights, "token_embd_norm", config.embedding_length, config.layer_norm_epsilon)
        self.blk = blocks

    def states(self, ops: Ops) -> Value:
        """What the model knows of each token, (tokens, width)."""
        first, *others = self.tables
        x = first(ops)
        for table in others:
            x = ops.add(x, table(ops))
        x = self.token_embd_norm(ops, x)
        for blk in self.blk:
            x = blk(ops, x)
        return x


def build(weights: Weights, config: ModelConfig) -> Encoder:
    """BERT, and RoBERTa in its form: places have embeddings of their own."""
    tables = _tables(weights, config)
    tables.append(Embedding(weights, "position_embd", config.embedding_length, config.context_length, "positions"))
    blocks = [Block(weights, config, layer, None, GeluFeedForward) for layer in range(config.block_count)]
    return Encoder(weights, config, tables, blocks)


def build_nomic(weights: Weights, config: ModelConfig) -> Encoder:
    """Nomic's: heads turn with their places, and the feed-forward layers are gated."""
    turn = rotation(config.rope, weights)
    blocks = [Block(weights, config, layer, turn, FeedForward) for layer in range(config.block_count)]
    return Encoder(weights, config, _tables(weights, config), blocks)


def _tables(weights: Weights, config: ModelConfig) -> list[Embedding]:
    """The embeddings of tokens and, where the file has them, of their types. A single text is all of the first type."""
    if not config.layer_norm_epsilon:
        raise ModelError(f"key '{config.architecture}.attention.layer_norm_epsilon' is missing or 0")
    tables = [Embedding(weights, "token_embd", config.embedding_length, config.n_vocab)]
    if "token_types.weight" in weights:
        tables.append(Embedding(weights, "token_types", config.embedding_length, config.token_type_count, "types"))
    return tables
