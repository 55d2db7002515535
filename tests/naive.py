"""Plain NumPy twins: what a model computes, in float64, without a cache, a kernel or a trick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from runtime.core import BLOCK_TOKENS
from runtime.kernels.kept import LARGEST, LENGTH, VALUE, WEIGHTS
from runtime.kernels.mix_leaves import WHOLE_LANES
from runtime.kernels.segments import SEGMENT

Array = np.ndarray

ACTIVATION_BLOCK = dict.fromkeys(("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4"), 32) | dict.fromkeys(
    ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"), 256
)  # values that share one int8 scale
BRAINS = -1  # no such scale, but bfloat16


class Model:
    """A GGUF file with every tensor dequantised; shapes rows first. `packed`: activations are rounded to the int8 blocks
    that the kernels multiply, with `brains` those of BF16 weights to bfloat16, so that what is left is the rounding of sums.
    `whole`: attention is one of whole numbers, as the CPU's.
    `cache`: what is left of keys and values when they are kept, f16 otherwise. `window`: so many tokens are seen, the own one
    included; 0: all."""

    def __init__(
        self,
        path: Path,
        *,
        packed: bool = False,
        whole: bool = False,
        brains: bool = False,
        cache: Callable[[Array], Array] | None = None,
        window: int = 0,
    ) -> None:
        self.window, self.whole = window, whole
        self.cache = cache or (lambda x: x.astype(np.float16).astype(np.float64))
        reader = gguf.GGUFReader(path)
        blocks = ACTIVATION_BLOCK | ({"BF16": BRAINS} if brains else {}) if packed else {}
        self.block = {t.name: blocks.get(t.tensor_type.name, 0) for t in reader.tensors}
        self.tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
        self.fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        self.architecture = self.fields["general.architecture"]

    def key(self, name: str, default: Any = None) -> Any:
        return self.fields.get(f"{self.architecture}.{name}", default)

    def logits(self, tokens: list[int]) -> Array:
        """Logits (tokens, vocabulary) of a whole text at once."""
        return self._linear("output" if "output.weight" in self.tensors else "token_embd", self._decoder_states(tokens))

    def _decoder_states(self, tokens: list[int]) -> Array:
        t = self.tensors
        x = t["token_embd.weight"][tokens]
        for layer in range(self.key("block_count")):
            blk = f"blk.{layer}."
            x = x + self._attention(blk, rms_norm(x, t[f"{blk}attn_norm.weight"], self._eps))
            h = rms_norm(x, t[f"{blk}ffn_norm.weight"], self._eps)
            x = x + (self._experts(blk, h) if f"{blk}ffn_gate_inp.weight" in t else self._feed_forward(blk, h))
        return rms_norm(x, t["output_norm.weight"], self._eps)

    def states(self, tokens: list[int]) -> Array:
        """What the model knows of each token of a text, (tokens, width)."""
        t = self.tensors
        if "token_embd_norm.weight" not in t:
            return self._decoder_states(tokens)
        x = t["token_embd.weight"][tokens]
        x = x + t.get("token_types.weight", np.zeros((1, x.shape[1])))[0]
        if "position_embd.weight" in t:
            x = x + t["position_embd.weight"][: len(tokens)]
        x = self._layer_norm("token_embd_norm", x)
        for layer in range(self.key("block_count")):
            blk = f"blk.{layer}."
            x = self._layer_norm(f"{blk}attn_output_norm", x + self._attention_in_text(blk, x))
            gated = f"{blk}ffn_gate.weight" in t
            h = self._feed_forward(blk, x) if gated else self._linear(f"{blk}ffn_down", gelu(self._linear(f"{blk}ffn_up", x)))
            x = self._layer_norm(f"{blk}layer_output_norm", x + h)
        return x

    def _attention_in_text(self, blk: str, x: Array) -> Array:
        """Every token sees all of the text."""
        heads = self.key("attention.head_count")
        if f"{blk}attn_qkv.weight" in self.tensors:
            parts = np.split(self._linear(f"{blk}attn_qkv", x), 3, -1)
        else:
            parts = [self._linear(f"{blk}attn_{name}", x) for name in "qkv"]
        q, k, v = (part.reshape(len(x), heads, -1) for part in parts)
        if self.architecture == "nomic-bert":
            q, k = self._turn(q), self._turn(k)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        return self._linear(f"{blk}attn_output", np.einsum("hqk,khd->qhd", softmax(scores), v).reshape(len(x), -1))

    def _layer_norm(self, name: str, x: Array) -> Array:
        x = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((x**2).mean(-1, keepdims=True) + float(self.key("attention.layer_norm_epsilon")))
        return x / scale * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    @property
    def _eps(self) -> float:
        return float(self.key("attention.layer_norm_rms_epsilon"))

    def _linear(self, name: str, x: Array, expert: int | None = None) -> Array:
        weight = self.tensors[f"{name}.weight"]
        weight = weight if expert is None else weight[expert]
        return rounded(x, self.block[f"{name}.weight"]) @ weight.T + self.tensors.get(f"{name}.bias", 0.0)

    def _attention(self, blk: str, x: Array) -> Array:
        heads, kv = self.key("attention.head_count"), self.key("attention.head_count_kv")
        q, k, v = (
            self._linear(f"{blk}attn_{name}", x).reshape(len(x), n, -1) for name, n in (("q", heads), ("k", kv), ("v", kv))
        )
        if f"{blk}attn_q_norm.weight" in self.tensors:
            q = rms_norm(q, self.tensors[f"{blk}attn_q_norm.weight"], self._eps)
            k = rms_norm(k, self.tensors[f"{blk}attn_k_norm.weight"], self._eps)
        q, k = self._turn(q), self._turn(k)
        k, v = self.cache(k), self.cache(v)
        scales = np.abs(v).max(-1) / VALUE
        if self.whole:
            q, k, v = by_length(q), by_length(k), np.rint(v / scales[..., None]) * scales[..., None]
        k, v = np.repeat(k, heads // kv, 1), np.repeat(v, heads // kv, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
        if self.window:
            scores += np.tril(np.full(scores.shape[1:], -np.inf), -self.window)
        sinks = self.tensors.get(f"{blk}attn_sinks.weight", np.full(heads, -np.inf))
        scores = np.concatenate((scores, np.broadcast_to(sinks[:, None, None], (heads, len(x), 1))), -1)
        weights = softmax(scores)[..., :-1]
        if self.whole:
            weights = whole_weights(weights, np.repeat(scales, heads // kv, 1).T)
        mixed = np.einsum("hqk,khd->qhd", weights, v)
        return self._linear(f"{blk}attn_output", mixed.reshape(len(x), -1))

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

    def _experts(self, blk: str, x: Array) -> Array:
        probabilities = softmax(self._linear(f"{blk}ffn_gate_inp", x))
        out = np.zeros_like(x)
        for row, p in enumerate(probabilities):
            chosen = np.argsort(-p, kind="stable")[: self.key("expert_used_count")]
            for e in chosen:
                out[row] += p[e] / p[chosen].sum() * self._feed_forward(blk, x[row], "_exps", int(e))
        return out

    def _feed_forward(self, blk: str, x: Array, suffix: str = "", expert: int | None = None) -> Array:
        gate, up = (self._linear(f"{blk}ffn_{name}{suffix}", x, expert) for name in ("gate", "up"))
        return self._linear(f"{blk}ffn_down{suffix}", gate / (1 + np.exp(-gate)) * up, expert)


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def gelu(x: Array) -> Array:
    return x / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_length(x: Array) -> Array:
    """Queries or keys as whole numbers times a scale: see runtime.kernels.kept."""
    length, largest = np.sqrt((x**2).sum(-1, keepdims=True)), np.abs(x).max(-1, keepdims=True)
    scale = np.maximum(length / LENGTH, largest / LARGEST)
    return np.rint(x / scale) * scale


def whole_weights(weights: Array, scales: Array) -> Array:
    """Weights (heads, rows, tokens) as whole numbers, which have the scales (heads, tokens) of values in them, times a factor for
    each segment: see runtime.kernels.mix_leaves."""
    found, tokens = np.empty_like(weights), weights.shape[-1]
    for start in range(0, tokens, SEGMENT):
        part = slice(start, min(start + SEGMENT, tokens))
        scaled = weights[..., part] * scales[:, None, part]
        blocks = np.zeros((*scaled.shape[:-1], -(-scaled.shape[-1] // BLOCK_TOKENS) * BLOCK_TOKENS))
        blocks[..., : scaled.shape[-1]] = scaled
        lanes = blocks.reshape(*scaled.shape[:-1], -1, BLOCK_TOKENS // WHOLE_LANES, WHOLE_LANES).sum(-2).max(-2).sum(-1)
        factor = (np.maximum(lanes * (LARGEST / WEIGHTS), scaled.max(-1)) / LARGEST)[..., None]
        found[..., part] = np.rint(scaled / np.where(factor == 0, 1, factor)) * factor / scales[:, None, part]
    return found


def rounded(x: Array, block: int) -> Array:
    """x as int8 times a scale for each block of the last axis; block 0: x itself; BRAINS: in eight bits of precision."""
    if not block:
        return x
    if block == BRAINS:
        mantissa, exponent = np.frexp(x)
        return np.ldexp(np.rint(mantissa * 256) / 256, exponent)
    parts = x.reshape(*x.shape[:-1], -1, block)
    scale = np.abs(parts).max(-1, keepdims=True) / 127
    return (np.rint(parts / np.where(scale == 0, 1, scale)) * scale).reshape(x.shape)


def spread(x: Array) -> Array:
    """Hadamard's transform of each 2**n values of the last axis, as many as divide it."""
    span = x.shape[-1] & -x.shape[-1]
    matrix = np.ones((1, 1))
    while len(matrix) < span:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (x.reshape(*x.shape[:-1], -1, span) @ (matrix / np.sqrt(span))).reshape(x.shape)


def kept(x: Array, bits: int) -> Array:
    """What a cache of quantised keys or values makes of x: spread, in groups of 32 with a scale in f16."""
    groups = spread(x).reshape(-1, 32)
    low, high = groups.min(-1, keepdims=True), groups.max(-1, keepdims=True)
    scale = np.maximum(high, -low) / 127 if bits == 8 else np.where(-low > high, low, high) / -8
    quants = np.floor(groups / np.where(scale == 0, 1, scale) + 0.5)
    quants = quants if bits == 8 else np.minimum(quants, 7)
    return spread((quants * scale.astype(np.float16).astype(np.float64)).reshape(x.shape))


def nmse(a: Array, b: Array) -> float:
    """Squared error relative to the square of b."""
    return float(((a - b) ** 2).sum() / (b**2).sum())
