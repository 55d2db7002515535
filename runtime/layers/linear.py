"""Linear layers and the embedding table."""

from __future__ import annotations

from runtime.core import FloatArray
from runtime.layers.ops import Ops, Value
from runtime.weights import Tensor, Weights


class Linear:
    """W x + b, W of shape (n_in, n_out) in ggml's order; the bias is there when the file has one."""

    def __init__(self, weights: Weights, name: str, n_in: int, n_out: int) -> None:
        self.weight: Tensor = weights.matrix(f"{name}.weight", n_in, n_out)
        self.bias: FloatArray | None = weights.vector(f"{name}.bias", n_out) if f"{name}.bias" in weights else None

    def __call__(self, ops: Ops, x: Value) -> Value:
        (out,) = ops.linear(x, (self.weight, self.bias))
        return out


def together(ops: Ops, x: Value, *layers: Linear) -> list[Value]:
    """The outputs of several layers on the same x, in one pass."""
    return ops.linear(x, *((layer.weight, layer.bias) for layer in layers))


class Embedding:
    """The table of token embeddings; it also serves as the output where a file has no other."""

    def __init__(self, weights: Weights, name: str, width: int, n_vocab: int) -> None:
        self.weight = weights.matrix(f"{name}.weight", width, n_vocab)

    def __call__(self, ops: Ops) -> Value:
        return ops.embed(self.weight)


class Output:
    """Logits: `output.weight`, or the embedding table where the two are tied."""

    def __init__(self, weights: Weights, token_embd: Embedding, width: int, n_vocab: int) -> None:
        tied = "output.weight" not in weights
        self.weight = token_embd.weight if tied else weights.matrix("output.weight", width, n_vocab)

    def __call__(self, ops: Ops, x: Value) -> Value:
        (logits,) = ops.linear(x, (self.weight, None))
        return logits
