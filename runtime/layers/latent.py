"""Multi-head latent attention (DeepSeek): what the cache holds of a token is one short vector for all heads."""

from __future__ import annotations

from runtime.config import ModelConfig
from runtime.layers.linear import Linear
from runtime.layers.norm import RMSNorm
from runtime.layers.ops import Attending, Heads, Ops, Part, Rotation, Value
from runtime.weights import Weights


class LatentAttention:
    """A head's key is a part that turns, the same for all heads, and one that its matrix makes of the latent vector; so is its
    value. Files have these matrices apart, and then the query and the output are multiplied by them in place of all keys and
    values; older files have one `attn_kv_b`, and every head gets keys and values of its own."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int, rotation: Rotation, scale: float) -> None:
        blk, width, eps = f"blk.{layer}", config.embedding_length, config.layer_norm_rms_epsilon
        heads, rope, latent = config.head_count, config.rope.dimensions, config.kv_lora_rank
        key, value = config.key_length_mla, config.value_length_mla
        self.layer, self.rotation = layer, rotation
        self.rope, self.latent, self.key, self.value = rope, latent, key, value
        self.attn_q_a = self.attn_q_a_norm = None
        if f"{blk}.attn_q_a.weight" in weights:
            rank = weights.rows(f"{blk}.attn_q_a.weight")
            self.attn_q_a = Linear(weights, f"{blk}.attn_q_a", width, rank)
            self.attn_q_a_norm = RMSNorm(weights, f"{blk}.attn_q_a_norm", rank, eps)
            self.attn_q = Linear(weights, f"{blk}.attn_q_b", rank, heads * key)
        else:
            self.attn_q = Linear(weights, f"{blk}.attn_q", width, heads * key)
        self.attn_kv_a_mqa = Linear(weights, f"{blk}.attn_kv_a_mqa", width, latent + rope)
        self.attn_kv_a_norm = RMSNorm(weights, f"{blk}.attn_kv_a_norm", latent, eps)
        self.attn_output = Linear(weights, f"{blk}.attn_output", heads * value, width)
        self.attn_kv_b = None
        if f"{blk}.attn_kv_b.weight" in weights:
            self.attn_kv_b = Linear(weights, f"{blk}.attn_kv_b", latent, heads * (key - rope + value))
            self.heads = Heads(heads, heads, key, value, True, scale)
        else:
            self.attn_k_b = weights.matrix(f"{blk}.attn_k_b.weight", key - rope, latent, heads)
            self.attn_v_b = weights.matrix(f"{blk}.attn_v_b.weight", latent, value, heads)
            self.heads = Heads(heads, 1, rope + latent, latent, True, scale)

    def __call__(self, ops: Ops, x: Value) -> Value:
        q = x if not self.attn_q_a or not self.attn_q_a_norm else self.attn_q_a_norm(ops, self.attn_q_a(ops, x))
        q, kv = self.attn_q(ops, q), self.attn_kv_a_mqa(ops, x)
        latent = self.attn_kv_a_norm(ops, ops.join(1, Part(kv, 0, self.latent)))
        attend = self._apart if self.attn_kv_b else self._together
        return self.attn_output(ops, attend(ops, q, Part(kv, self.latent, self.rope), latent))

    def _together(self, ops: Ops, q: Value, turning: Part, latent: Value) -> Value:
        """All heads against the latent vectors themselves."""
        heads, still = self.heads.head_count, self.key - self.rope
        absorbed = ops.by_head(ops.join(heads, Part(q, 0, still, self.key)), self.attn_k_b)
        query = ops.join(heads, Part(q, still, self.rope, self.key), Part(absorbed, 0, self.latent, self.latent))
        keys = ops.join(1, turning, Part(latent, 0, self.latent))
        return ops.by_head(self._attend(ops, query, keys, latent), self.attn_v_b)

    def _apart(self, ops: Ops, q: Value, turning: Part, latent: Value) -> Value:
        """Each head against its own keys and values."""
        assert self.attn_kv_b is not None
        heads, still = self.heads.head_count, self.key - self.rope
        kv, stride = self.attn_kv_b(ops, latent), still + self.value
        query = ops.join(heads, Part(q, still, self.rope, self.key), Part(q, 0, still, self.key))
        keys = ops.join(heads, turning, Part(kv, 0, still, stride))
        return self._attend(ops, query, keys, ops.join(heads, Part(kv, still, self.value, stride)))

    def _attend(self, ops: Ops, q: Value, k: Value, v: Value) -> Value:
        return ops.attention(q, k, v, Attending(self.layer, self.heads, self.rotation))
