"""Self-attention with grouped heads."""

from __future__ import annotations

import math

from runtime.config import ModelConfig
from runtime.layers.linear import Linear, split, together
from runtime.layers.norm import RMSNorm
from runtime.layers.ops import Attending, Heads, Ops, Part, Rotation, Value
from runtime.weights import Weights


class Attention:
    """q, k, v -> rotate, store, attend -> output. Attributes carry the names of the GGUF tensors of block `layer`."""

    def __init__(
        self,
        weights: Weights,
        config: ModelConfig,
        layer: int,
        rotation: Rotation | None,
        *,
        rope_interleaved: bool = False,
        head_norms: bool = False,
        wide_norms: bool = False,
        causal: bool = True,
        window: int = 0,
        softcap: float = 0.0,
        scale: float | None = None,
        value_norm: bool = False,
        gated: bool = False,
    ) -> None:
        """`gated`: beside each head of q stands one of a gate, whose sigmoid is multiplied with what the head gives."""
        blk, width = f"blk.{layer}", config.embedding_length
        keys, values = config.key_length, config.value_length
        self.layer = layer
        self.gated = gated
        sizes = config.head_count * keys * (1 + gated), config.head_count_kv * keys, config.head_count_kv * values
        self.linears = split(weights, f"{blk}.attn_qkv", width, sizes) or [
            Linear(weights, f"{blk}.attn_{name}", width, size)
            for name, size in zip("qkv", sizes, strict=True)
            if name != "v" or not value_norm or f"{blk}.attn_v.weight" in weights  # else keys are values too
        ]
        self.attn_output = Linear(weights, f"{blk}.attn_output", config.head_count * values, width)
        self.attn_q_norm = self.attn_k_norm = None
        if head_norms:
            eps = config.layer_norm_rms_epsilon
            self.attn_q_norm = RMSNorm(weights, f"{blk}.attn_q_norm", keys, eps)
            self.attn_k_norm = RMSNorm(weights, f"{blk}.attn_k_norm", keys, eps)
        self.wide_norms = None
        if wide_norms:
            names = zip(("attn_q_norm", "attn_k_norm"), sizes, strict=False)
            q_norm, k_norm = (RMSNorm(weights, f"{blk}.{name}", n, config.layer_norm_rms_epsilon) for name, n in names)
            self.wide_norms = q_norm, k_norm
        scale = scale or 1 / math.sqrt(keys)
        self.heads = Heads(
            *(config.head_count, config.head_count_kv, keys, values, rope_interleaved, scale, causal, window),
            value_eps=config.layer_norm_rms_epsilon if value_norm else 0.0,
            softcap=softcap,
        )
        self.rotation = rotation
        sinks = f"{blk}.attn_sinks.weight"
        self.attn_sinks = weights.vector(sinks, config.head_count) if sinks in weights else None

    def __call__(self, ops: Ops, x: Value) -> Value:
        q, k, *rest = together(ops, x, *self.linears)
        gate = None
        if self.gated:
            q, gate = self._parted(ops, q)
        v = rest[0] if rest else ops.join(1, Part(k, 0, self.heads.head_count_kv * self.heads.value_length))
        if self.wide_norms:
            q, k = (norm(ops, value) for norm, value in zip(self.wide_norms, (q, k), strict=True))
        norms = None
        if self.attn_q_norm and self.attn_k_norm:
            norms = self.attn_q_norm.weight, self.attn_k_norm.weight, self.attn_q_norm.eps
        out = ops.attention(q, k, v, Attending(self.layer, self.heads, self.rotation, norms, self.attn_sinks))
        return self.attn_output(ops, out if gate is None else ops.gated(gate, out, "sigmoid"))

    def _parted(self, ops: Ops, q: Value) -> tuple[Value, Value]:
        """The queries and their gates."""
        heads, size = self.heads.head_count, self.heads.key_length
        return ops.join(heads, Part(q, 0, size, 2 * size)), ops.join(heads, Part(q, size, size, 2 * size))
