"""Norms of a row."""

from __future__ import annotations

from runtime.layers.ops import Ops, Value
from runtime.weights import Weights


class RMSNorm:
    """x / sqrt(mean(x**2) + eps) * weight."""

    def __init__(self, weights: Weights, name: str, width: int, eps: float) -> None:
        self.weight = weights.vector(f"{name}.weight", width)
        self.eps = eps

    def __call__(self, ops: Ops, x: Value) -> Value:
        return ops.rms_norm(x, self.weight, self.eps)


class LayerNorm:
    """(x - mean) / sqrt(variance + eps) * weight + bias."""

    def __init__(self, weights: Weights, name: str, width: int, eps: float) -> None:
        self.weight = weights.vector(f"{name}.weight", width)
        self.bias = weights.vector(f"{name}.bias", width)
        self.eps = eps

    def __call__(self, ops: Ops, x: Value) -> Value:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)
