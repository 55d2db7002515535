"""Linear layers and the embedding table."""

from __future__ import annotations

import copy

from runtime.core import FloatArray
from runtime.layers.ops import Of, Ops, Value
from runtime.weights import Tensor, Weights


class Linear:
    """W x + b, W of shape (n_in, n_out) in ggml's order; the bias is there when the file has one."""

    def __init__(self, weights: Weights, name: str, n_in: int, n_out: int) -> None:
        self.weight: Tensor = weights.matrix(f"{name}.weight", n_in, n_out)
        self.bias: FloatArray | None = weights.vector(f"{name}.bias", n_out) if f"{name}.bias" in weights else None
        self.adapters = weights.adapters(f"{name}.weight")

    def part(self, first: int, n_out: int) -> Linear:
        """The layer that gives only some of the outputs."""
        part = copy.copy(self)
        part.weight = self.weight.part(first, n_out)
        part.bias = None if self.bias is None else self.bias[first : first + n_out]
        part.adapters = [adapter.part(first, n_out) for adapter in self.adapters]
        return part

    def __call__(self, ops: Ops, x: Value) -> Value:
        (out,) = together(ops, x, self)
        return out

    def adapted(self, ops: Ops, x: Value, out: Value) -> Value:
        """The output with what adapters add to it."""
        for adapter in self.adapters:
            (low,) = ops.linear(x, (adapter.a, None))
            (change,) = ops.linear(low, (adapter.b, None))
            out = ops.add(out, change)
        return out


def together(ops: Ops, x: Value, *layers: Linear) -> list[Value]:
    """The outputs of several layers on the same x, in one pass."""
    outs = ops.linear(x, *((layer.weight, layer.bias) for layer in layers))
    return [layer.adapted(ops, x, out) for layer, out in zip(layers, outs, strict=True)]


def split(weights: Weights, name: str, n_in: int, sizes: tuple[int, ...]) -> list[Linear] | None:
    """The layers that a file keeps in one tensor, one after the other; None where there is no such tensor."""
    if f"{name}.weight" not in weights:
        return None
    fused = Linear(weights, name, n_in, sum(sizes))
    return [fused.part(sum(sizes[:i]), size) for i, size in enumerate(sizes)]


class Embedding:
    """A table of embeddings. That of the tokens also serves as the output where a file has no other."""

    def __init__(self, weights: Weights, name: str, width: int, n_rows: int, of: Of = "tokens") -> None:
        self.weight = weights.matrix(f"{name}.weight", width, n_rows)
        self.of: Of = of

    def __call__(self, ops: Ops) -> Value:
        return ops.embed(self.weight, self.of)


class Output(Linear):
    """Logits: `output.weight`, or the embedding table where the two are tied."""

    def __init__(self, weights: Weights, token_embd: Embedding, width: int, n_vocab: int) -> None:
        tied = "output.weight" not in weights
        self.weight = token_embd.weight if tied else weights.matrix("output.weight", width, n_vocab)
        self.bias = None
        self.adapters = [] if tied else weights.adapters("output.weight")
