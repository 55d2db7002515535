"""The plain decoder that most architectures are: blocks of attention and feed-forward around a residual stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from runtime.config import ModelConfig
from runtime.layers.delta_net import DeltaNet
from runtime.layers.linear import Embedding, Output
from runtime.layers.norm import RMSNorm
from runtime.layers.ops import Heads, Ops, Value
from runtime.weights import Weights

Layer = Callable[[Ops, Value], Value]


class AttentionLayer(Protocol):
    """A layer that keeps keys and values in the cache, of the shapes in `heads`."""

    heads: Heads

    def __call__(self, ops: Ops, x: Value) -> Value: ...


class Block:
    """x + attention(norm x), then x + feed_forward(norm x). In place of attention a layer may keep a state of the text."""

    def __init__(
        self,
        weights: Weights,
        config: ModelConfig,
        layer: int,
        attention: AttentionLayer | DeltaNet,
        feed_forward: Layer,
        *,
        ffn_norm: str = "ffn_norm",
    ) -> None:
        width, eps = config.embedding_length, config.layer_norm_rms_epsilon
        self.attn_norm = RMSNorm(weights, f"blk.{layer}.attn_norm", width, eps)
        self.attention = attention
        self.ffn_norm = RMSNorm(weights, f"blk.{layer}.{ffn_norm}", width, eps)
        self.feed_forward = feed_forward

    def __call__(self, ops: Ops, x: Value) -> Value:
        x = ops.add(x, self.attention(ops, self.attn_norm(ops, x)))
        return ops.add(x, self.feed_forward(ops, self.ffn_norm(ops, x)))


class Transformer:
    """Embedding, blocks, norm, logits. `block(layer)` builds one block."""

    def __init__(self, weights: Weights, config: ModelConfig, block: Callable[[int], Block]) -> None:
        width = config.embedding_length
        self.config = config
        self.token_embd = Embedding(weights, "token_embd", width, config.n_vocab)
        self.blk = [block(layer) for layer in range(config.block_count)]
        self.output_norm = RMSNorm(weights, "output_norm", width, config.layer_norm_rms_epsilon)
        self.output = Output(weights, self.token_embd, width, config.n_vocab)

    @property
    def heads(self) -> list[Heads]:
        """Those of each layer that attends."""
        return self.heads_from(0)

    def heads_from(self, first: int) -> list[Heads]:
        """Those of each layer from `first` on that attends."""
        return [blk.attention.heads for blk in self.blk[first:] if not isinstance(blk.attention, DeltaNet)]

    def state_bytes(self, first: int = 0) -> int:
        """What layers from `first` on keep of one text beside its keys and values."""
        return sum(blk.attention.shape.state_bytes for blk in self.blk[first:] if isinstance(blk.attention, DeltaNet))

    def __call__(self, ops: Ops) -> Value:
        """Logits of the rows that are wanted, (outputs, vocabulary)."""
        return self.end(ops, self.begin(ops, 0), 0)

    def begin(self, ops: Ops, layers: int) -> Value:
        """The embedded tokens after the first so many blocks, (tokens, width)."""
        x = self._embedded(ops)
        for blk in self.blk[:layers]:
            x = blk(ops, x)
        return x

    def end(self, ops: Ops, x: Value, layers: int) -> Value:
        """Logits of the rows that are wanted, from what `begin` made with so many layers."""
        for blk in self.blk[layers:]:
            x = blk(ops, x)
        return self.output(ops, self.output_norm(ops, ops.outputs(x)))

    def states(self, ops: Ops) -> Value:
        """What the model knows of each token, (tokens, width)."""
        return self.output_norm(ops, self.begin(ops, len(self.blk)))

    def _embedded(self, ops: Ops) -> Value:
        return self.token_embd(ops)
