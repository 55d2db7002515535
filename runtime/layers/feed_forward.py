"""The feed-forward layers: gated, dense or a mixture of experts; and the older one without a gate."""

from __future__ import annotations

from runtime.config import ModelConfig
from runtime.core import ModelError
from runtime.layers.linear import Linear, together
from runtime.layers.ops import Ops, Routing, Value
from runtime.weights import Weights


class FeedForward:
    """down(silu(gate x) * up x)."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int) -> None:
        blk, width, inner = f"blk.{layer}", config.embedding_length, config.feed_forward_length
        self.ffn_gate = Linear(weights, f"{blk}.ffn_gate", width, inner)
        self.ffn_up = Linear(weights, f"{blk}.ffn_up", width, inner)
        self.ffn_down = Linear(weights, f"{blk}.ffn_down", inner, width)

    def __call__(self, ops: Ops, x: Value) -> Value:
        gate, up = together(ops, x, self.ffn_gate, self.ffn_up)
        return self.ffn_down(ops, ops.silu_mul(gate, up))


class GeluFeedForward:
    """down(gelu(up x))."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int) -> None:
        blk, width, inner = f"blk.{layer}", config.embedding_length, config.feed_forward_length
        self.ffn_up = Linear(weights, f"{blk}.ffn_up", width, inner)
        self.ffn_down = Linear(weights, f"{blk}.ffn_down", inner, width)

    def __call__(self, ops: Ops, x: Value) -> Value:
        return self.ffn_down(ops, ops.gelu(self.ffn_up(ops, x)))


class MoE:
    """The router `ffn_gate_inp` chooses experts whose matrices lie stacked in three tensors."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int, *, normalize: bool = True, scale: float = 1.0) -> None:
        blk, width = f"blk.{layer}", config.embedding_length
        inner, experts = config.expert_feed_forward_length, config.expert_count
        if experts == 0:
            raise ModelError(f"key '{config.architecture}.expert_count' is missing or 0")
        self.ffn_gate_inp = Linear(weights, f"{blk}.ffn_gate_inp", width, experts)
        self.ffn_gate_exps = weights.matrix(f"{blk}.ffn_gate_exps.weight", width, inner, experts)
        self.ffn_up_exps = weights.matrix(f"{blk}.ffn_up_exps.weight", width, inner, experts)
        self.ffn_down_exps = weights.matrix(f"{blk}.ffn_down_exps.weight", inner, width, experts)
        self.routing = Routing(config.expert_used_count, normalize, scale)

    def __call__(self, ops: Ops, x: Value) -> Value:
        logits = self.ffn_gate_inp(ops, x)
        return ops.experts(x, logits, self.ffn_gate_exps, self.ffn_up_exps, self.ffn_down_exps, self.routing)
