"""Gated DeltaNet: instead of keys and values of all tokens, the cache holds one state of the whole text."""

from __future__ import annotations

import numpy as np

from runtime.config import ModelConfig
from runtime.core import ModelError
from runtime.layers.linear import Linear, together
from runtime.layers.ops import DeltaWeights, Ops, Part, Recurrence, Value
from runtime.weights import Weights


class DeltaNet:
    """q, k, v and z, a decay and a share -> convolve, learn and recall -> output. `grouped`: see `Recurrence`.

    Attributes carry the names of the GGUF tensors of block `layer`; some files have several of them in one.
    """

    def __init__(self, weights: Weights, config: ModelConfig, layer: int, *, grouped: bool) -> None:
        blk, width = f"blk.{layer}", config.embedding_length
        self.layer, self.shape = layer, recurrence(config, grouped=grouped)
        heads, size = self.shape.value_heads, self.shape.size
        self.ssm_in = self.ssm_ba = None
        if f"{blk}.attn_qkv.weight" in weights:
            self.attn_qkv = Linear(weights, f"{blk}.attn_qkv", width, self.shape.channels)
            self.attn_gate = Linear(weights, f"{blk}.attn_gate", width, heads * size)
        else:
            self.ssm_in = Linear(weights, f"{blk}.ssm_in", width, self.shape.channels + heads * size)
        if f"{blk}.ssm_ba.weight" in weights:
            self.ssm_ba = Linear(weights, f"{blk}.ssm_ba", width, 2 * heads)
        else:
            self.ssm_alpha = Linear(weights, f"{blk}.ssm_alpha", width, heads)
            self.ssm_beta = Linear(weights, f"{blk}.ssm_beta", width, heads)
        conv = weights.dequantize(weights.matrix(f"{blk}.ssm_conv1d.weight", self.shape.kernel, self.shape.channels))
        self.weights = DeltaWeights(
            np.ascontiguousarray(conv.reshape(self.shape.channels, self.shape.kernel)),
            weights.vector(f"{blk}.ssm_a", heads),
            weights.vector(f"{blk}.ssm_dt.bias", heads),
            weights.vector(f"{blk}.ssm_norm.weight", size),
        )
        self.ssm_out = Linear(weights, f"{blk}.ssm_out", heads * size, width)

    def __call__(self, ops: Ops, x: Value) -> Value:
        qkv, z = self._inputs(ops, x)
        alpha, beta = self._gates(ops, x)
        return self.ssm_out(ops, ops.delta(self.layer, qkv, z, alpha, beta, self.shape, self.weights))

    def _inputs(self, ops: Ops, x: Value) -> tuple[Value, Value]:
        """qkv and z. In `ssm_in` each key head has its own query, key, values and gates together."""
        if self.ssm_in is None:
            qkv, z = together(ops, x, self.attn_qkv, self.attn_gate)
            return qkv, z
        heads, size = self.shape.key_heads, self.shape.size
        values = self.shape.value_heads // heads * size
        mixed, stride = self.ssm_in(ops, x), 2 * size + 2 * values
        places = (0, size), (size, size), (2 * size, values), (2 * size + values, values)
        q, k, v, z = (ops.join(heads, Part(mixed, first, length, stride)) for first, length in places)
        keys = Part(q, 0, heads * size), Part(k, 0, heads * size)
        return ops.join(1, *keys, Part(v, 0, heads * values)), z

    def _gates(self, ops: Ops, x: Value) -> tuple[Value, Value]:
        """alpha and beta. In `ssm_ba` each key head has its own together."""
        if self.ssm_ba is None:
            alpha, beta = together(ops, x, self.ssm_alpha, self.ssm_beta)
            return alpha, beta
        both, heads = self.ssm_ba(ops, x), self.shape.key_heads
        each = self.shape.value_heads // heads
        alpha = ops.join(heads, Part(both, each, each, 2 * each))
        return alpha, ops.join(heads, Part(both, 0, each, 2 * each))


def recurrence(config: ModelConfig, *, grouped: bool) -> Recurrence:
    """The shapes of a model's recurrent layers; ModelError where its file states none that can be."""
    ssm = config.ssm
    if not ssm.group_count or not ssm.time_step_rank or ssm.time_step_rank % ssm.group_count:
        raise ModelError(f"{ssm.time_step_rank} value heads cannot share {ssm.group_count} key heads")
    if not 2 <= ssm.conv_kernel <= 16:
        raise ModelError(f"a convolution of {ssm.conv_kernel} tokens cannot be run")
    if not ssm.state_size or ssm.inner_size != ssm.time_step_rank * ssm.state_size:
        raise ModelError(f"{ssm.time_step_rank} heads of {ssm.state_size} do not make {ssm.inner_size}")
    eps = config.layer_norm_rms_epsilon
    return Recurrence(ssm.group_count, ssm.time_step_rank, ssm.state_size, ssm.conv_kernel, grouped, eps)
