"""The feed-forward layers: gated, dense or a mixture of experts; and the older one without a gate."""

from __future__ import annotations

from runtime.config import SOFTMAX, ModelConfig
from runtime.core import FloatArray, ModelError
from runtime.layers.linear import Linear, split, together
from runtime.layers.ops import Activation, Experts, Ops, Routing, Value
from runtime.weights import Weights


class FeedForward:
    """down(activation(gate x) * up x)."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int, activation: Activation = "silu") -> None:
        self._read(weights, f"blk.{layer}.ffn", config.embedding_length, config.feed_forward_length)
        self.activation: Activation = activation

    def _read(self, weights: Weights, ffn: str, width: int, inner: int, suffix: str = "") -> None:
        gate, up = f"{ffn}_gate{suffix}", f"{ffn}_up{suffix}"
        fused = f"{gate}.weight" not in weights and f"{up}.weight" in weights and weights.rows(f"{up}.weight") == 2 * inner
        halves = split(weights, up, width, (inner, inner)) if fused else None
        self.ffn_gate, self.ffn_up = halves or (Linear(weights, gate, width, inner), Linear(weights, up, width, inner))
        self.ffn_down = Linear(weights, f"{ffn}_down{suffix}", inner, width)

    def __call__(self, ops: Ops, x: Value) -> Value:
        gate, up = together(ops, x, self.ffn_gate, self.ffn_up)
        return self.ffn_down(ops, ops.gated(gate, up, self.activation))


class SharedExpert(FeedForward):
    """An expert that every token goes to, beside those that a router chooses. Its width is that of its tensors. Some have a
    gate: one number for each token, whose sigmoid is its weight."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int) -> None:
        inner = weights.rows(f"blk.{layer}.ffn_up_shexp.weight")
        self._read(weights, f"blk.{layer}.ffn", config.embedding_length, inner, "_shexp")
        self.activation = "silu"
        gate = f"blk.{layer}.ffn_gate_inp_shexp.weight"
        self.ffn_gate_inp_shexp = weights.matrix(gate, config.embedding_length) if gate in weights else None

    def __call__(self, ops: Ops, x: Value) -> Value:
        out = super().__call__(ops, x)
        if self.ffn_gate_inp_shexp is None:
            return out
        (logits,) = ops.linear(x, (self.ffn_gate_inp_shexp, None))
        return ops.gate_rows(out, logits)


class GeluFeedForward:
    """down(gelu(up x))."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int) -> None:
        blk, width, inner = f"blk.{layer}", config.embedding_length, config.feed_forward_length
        self.ffn_up = Linear(weights, f"{blk}.ffn_up", width, inner)
        self.ffn_down = Linear(weights, f"{blk}.ffn_down", inner, width)

    def __call__(self, ops: Ops, x: Value) -> Value:
        return self.ffn_down(ops, ops.gelu(self.ffn_up(ops, x)))


class MoE:
    """The router `ffn_gate_inp` chooses experts whose matrices lie stacked in three tensors. With a shared one where there is
    one in the file."""

    def __init__(
        self,
        weights: Weights,
        config: ModelConfig,
        layer: int,
        *,
        normalize: bool = True,
        gating: int = SOFTMAX,
        activation: Activation = "silu",
    ) -> None:
        blk, width = f"blk.{layer}", config.embedding_length
        inner, experts = config.expert_feed_forward_length, config.expert_count
        if experts == 0:
            raise ModelError(f"key '{config.architecture}.expert_count' is missing or 0")
        self.ffn_gate_inp = Linear(weights, f"{blk}.ffn_gate_inp", width, experts)
        fused = f"{blk}.ffn_gate_up_exps.weight"
        if fused in weights:
            weights.divide(fused, (f"{blk}.ffn_gate_exps.weight", f"{blk}.ffn_up_exps.weight"))
        self.ffn_gate_exps = weights.matrix(f"{blk}.ffn_gate_exps.weight", width, inner, experts)
        self.ffn_up_exps = weights.matrix(f"{blk}.ffn_up_exps.weight", width, inner, experts)
        self.ffn_down_exps = weights.matrix(f"{blk}.ffn_down_exps.weight", inner, width, experts)
        biases = _biases(weights, f"{blk}.ffn", width, inner, experts)
        self.experts = Experts(self.ffn_gate_exps, self.ffn_up_exps, self.ffn_down_exps, biases, activation)
        bias = f"{blk}.exp_probs_b.bias"
        self.routing = Routing(
            config.expert_used_count,
            normalize,
            config.expert_weights_scale,
            gating,
            weights.vector(bias, experts) if bias in weights else None,
            config.expert_group_count,
            config.expert_group_used_count,
            weights.vector(f"{blk}.ffn_down_exps.scale", experts) if f"{blk}.ffn_down_exps.scale" in weights else None,
        )
        self.shared = SharedExpert(weights, config, layer) if f"{blk}.ffn_up_shexp.weight" in weights else None

    def __call__(self, ops: Ops, x: Value) -> Value:
        shared = self.shared
        beside = (lambda: shared(ops, x)) if shared else None
        return ops.experts(x, self.ffn_gate_inp(ops, x), self.experts, self.routing, beside)


def _biases(
    weights: Weights, ffn: str, width: int, inner: int, experts: int
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Those of gates, ups and downs, of all experts one after the other; None where the file has none."""
    if f"{ffn}_gate_exps.bias" not in weights:
        return None
    gate, up, down = (
        weights.dequantize(weights.matrix(f"{ffn}_{name}_exps.bias", n, experts))
        for name, n in (("gate", inner), ("up", inner), ("down", width))
    )
    return gate, up, down
