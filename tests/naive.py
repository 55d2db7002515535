"""Plain NumPy twins: what a model computes, in float64, without a cache, a kernel or a trick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

Array = np.ndarray


class Model:
    """A GGUF file with every tensor dequantised; shapes rows first."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
        self.fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        self.architecture = self.fields["general.architecture"]

    def key(self, name: str, default: Any = None) -> Any:
        return self.fields.get(f"{self.architecture}.{name}", default)

    def logits(self, tokens: list[int]) -> Array:
        """Logits (tokens, vocabulary) of a whole text at once."""
        t = self.tensors
        x = t["token_embd.weight"][tokens]
        for layer in range(self.key("block_count")):
            w = {name.split(".", 2)[2]: value for name, value in t.items() if name.startswith(f"blk.{layer}.")}
            x = x + self._attention(w, rms_norm(x, w["attn_norm.weight"], self._eps))
            h = rms_norm(x, w["ffn_norm.weight"], self._eps)
            x = x + (self._experts(w, h) if "ffn_gate_inp.weight" in w else feed_forward(w, h))
        return rms_norm(x, t["output_norm.weight"], self._eps) @ t.get("output.weight", t["token_embd.weight"]).T

    @property
    def _eps(self) -> float:
        return float(self.key("attention.layer_norm_rms_epsilon"))

    def _attention(self, w: dict[str, Array], x: Array) -> Array:
        heads, kv = self.key("attention.head_count"), self.key("attention.head_count_kv")
        q, k, v = (
            (x @ w[f"attn_{name}.weight"].T + w.get(f"attn_{name}.bias", 0.0)).reshape(len(x), n, -1)
            for name, n in (("q", heads), ("k", kv), ("v", kv))
        )
        if "attn_q_norm.weight" in w:
            q, k = rms_norm(q, w["attn_q_norm.weight"], self._eps), rms_norm(k, w["attn_k_norm.weight"], self._eps)
        q, k = self._turn(q), self._turn(k)
        k, v = np.repeat(k, heads // kv, 1), np.repeat(v, heads // kv, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
        return np.einsum("hqk,khd->qhd", softmax(scores), v).reshape(len(x), -1) @ w["attn_output.weight"].T

    def _turn(self, x: Array) -> Array:
        """Rotary embedding; llama turns neighbours, the others halves."""
        size = self.key("rope.dimension_count", x.shape[-1])
        frequencies = float(self.key("rope.freq_base")) ** (-np.arange(size // 2) / (size // 2))
        if "rope_freqs.weight" in self.tensors:
            frequencies = frequencies / self.tensors["rope_freqs.weight"]
        frequencies = frequencies / (self.key("rope.scaling.factor", 1.0) if self.key("rope.scaling.type") == "linear" else 1.0)
        angles = np.arange(len(x))[:, None, None] * frequencies
        neighbours, halves = (slice(0, size, 2), slice(1, size, 2)), (slice(size // 2), slice(size // 2, size))
        pairs = neighbours if self.architecture == "llama" else halves
        a, b, out = x[..., pairs[0]], x[..., pairs[1]], x.copy()
        out[..., pairs[0]] = a * np.cos(angles) - b * np.sin(angles)
        out[..., pairs[1]] = a * np.sin(angles) + b * np.cos(angles)
        return out

    def _experts(self, w: dict[str, Array], x: Array) -> Array:
        probabilities = softmax(x @ w["ffn_gate_inp.weight"].T)
        out = np.zeros_like(x)
        for row, p in enumerate(probabilities):
            chosen = np.argsort(-p, kind="stable")[: self.key("expert_used_count")]
            for e in chosen:
                weights = {f"ffn_{n}.weight": w[f"ffn_{n}_exps.weight"][e] for n in ("gate", "up", "down")}
                out[row] += p[e] / p[chosen].sum() * feed_forward(weights, x[row])
        return out


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def feed_forward(w: dict[str, Array], x: Array) -> Array:
    gate = x @ w["ffn_gate.weight"].T
    return (gate / (1 + np.exp(-gate)) * (x @ w["ffn_up.weight"].T)) @ w["ffn_down.weight"].T


def nmse(a: Array, b: Array) -> float:
    """Squared error relative to the square of b."""
    return float(((a - b) ** 2).sum() / (b**2).sum())
