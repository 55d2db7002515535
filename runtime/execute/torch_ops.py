"""The forward pass on torch tensors: the same models as on the CPU kernels, on any torch device.

Weights are kept dequantised, in f16 on a GPU. Activations between layers are f32; matrix products and attention run in the
weights' type.
"""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor as Value
from torch.nn import functional

from runtime.core import BLOCK_TOKENS, Batch, FloatArray, IntArray, ModelError
from runtime.kernels import cores
from runtime.kernels.leaves import Leaves
from runtime.layers.ops import Heads, Of, Rotation, Routing
from runtime.weights import Tensor

FEW_ROWS = 4  # up to so many rows the experts' matrices are gathered by pair; beyond, each expert runs on its rows
CHUNK_BLOCKS = 1 << 16  # blocks dequantised by one task


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """The rows of one sequence in a batch: rows [first, last), whose text is `length` tokens long after them."""

    first: int
    last: int
    length: int
    line: int  # of the block tables


class TorchStep:
    """One batch on the device."""

    def __init__(self, batch: Batch, device: torch.device) -> None:
        def put(array: Any) -> Value:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device).long()

        self.tokens, self.positions, self.outputs = put(batch.tokens), put(batch.positions), put(batch.outputs)
        self.types = torch.zeros_like(self.tokens)
        blocks = batch.tables[batch.sequences, batch.positions // BLOCK_TOKENS]
        self.slots = put(blocks.astype(np.int64) * BLOCK_TOKENS + batch.positions % BLOCK_TOKENS)
        self.spans = _spans(batch)
        self.tables = [put(_text_slots(batch.tables[span.line], span.length)) for span in self.spans]


def _text_slots(table: IntArray, length: int) -> npt.NDArray[np.int64]:
    """Where a text's tokens lie in the cache; as many as its blocks hold."""
    blocks = table[: -(-length // BLOCK_TOKENS), None].astype(np.int64)
    return (blocks * BLOCK_TOKENS + np.arange(BLOCK_TOKENS)).ravel()


def _spans(batch: Batch) -> list[Span]:
    edges = [0, *(np.flatnonzero(np.diff(batch.sequences)) + 1).tolist(), len(batch.tokens)]
    return [
        Span(first, last, int(batch.positions[last - 1]) + 1, int(batch.sequences[first]))
        for first, last in itertools.pairwise(edges)
    ]


class TorchOps:
    """Implements runtime.layers.ops.Ops. `step` is set before each forward pass."""

    def __init__(self, device: torch.device, dtype: torch.dtype, blocks: int, leaves: Leaves) -> None:
        self.device = device
        self.dtype = dtype
        self.caches: list[tuple[Value, Value]] = []  # keys and values of a layer, (slots, kv heads, size)
        self.step: TorchStep | None = None
        self._slots = blocks * BLOCK_TOKENS
        self._leaves = leaves
        self._weights: dict[str, Value] = {}
        self._vectors: dict[int, tuple[Any, Value]] = {}  # by id; the array is kept so that the id stays its own

    @property
    def now(self) -> TorchStep:
        assert self.step is not None
        return self.step

    # ------------------------------------------------------------ Ops

    def embed(self, table: Tensor, of: Of = "tokens") -> Value:
        return functional.embedding(getattr(self.now, of), self.weight(table)).float()

    def linear(self, x: Value, *weights: tuple[Tensor, FloatArray | None]) -> list[Value]:
        x = x.to(self.dtype)
        outs = [functional.linear(x, self.weight(tensor)).float() for tensor, _ in weights]
        return [out if bias is None else out + self._vector(bias) for out, (_, bias) in zip(outs, weights, strict=True)]

    def rms_norm(self, x: Value, weight: FloatArray, eps: float) -> Value:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * self._vector(weight)

    def layer_norm(self, x: Value, weight: FloatArray, bias: FloatArray, eps: float) -> Value:
        return functional.layer_norm(x, x.shape[-1:], self._vector(weight), self._vector(bias), eps)

    def attention(
        self,
        layer: int,
        q: Value,
        k: Value,
        v: Value,
        heads: Heads,
        rotation: Rotation | None,
        norms: tuple[FloatArray, FloatArray, float] | None,
    ) -> Value:
        if rotation is None or not heads.causal:
            raise ModelError("this model needs whole texts: it makes vectors of them, and no text of its own")
        q, k = q.unflatten(-1, (heads.head_count, -1)), k.unflatten(-1, (heads.head_count_kv, -1))
        v = v.unflatten(-1, (heads.head_count_kv, -1))
        if norms:
            q, k = self.rms_norm(q, norms[0], norms[2]), self.rms_norm(k, norms[1], norms[2])
        q, k = self._turn(q, heads, rotation), self._turn(k, heads, rotation)
        keys, values = self._cache(layer, heads)
        keys[self.now.slots], values[self.now.slots] = k.to(self.dtype), v.to(self.dtype)
        outs = [
            self._attend(q[span.first : span.last], keys[table[: span.length]], values[table[: span.length]], span, heads)
            for span, table in zip(self.now.spans, self.now.tables, strict=True)
        ]
        return torch.cat(outs).flatten(1)

    def silu_mul(self, gate: Value, up: Value) -> Value:
        return functional.silu(gate) * up

    def gelu(self, x: Value) -> Value:
        return functional.gelu(x, approximate="tanh")

    def experts(self, x: Value, logits: Value, gate: Tensor, up: Tensor, down: Tensor, routing: Routing) -> Value:
        weights, ids = logits.softmax(-1).topk(routing.expert_used_count, -1)
        if routing.normalize:
            weights = weights / weights.sum(-1, keepdim=True)
        weights = weights * routing.scale
        matrices = self.weight(gate), self.weight(up), self.weight(down)
        run = self._pairs if len(x) <= FEW_ROWS else self._by_expert
        return run(x.to(self.dtype), ids, weights, *matrices)

    def add(self, x: Value, y: Value) -> Value:
        return x + y

    def outputs(self, x: Value) -> Value:
        return x[self.now.outputs]

    # ------------------------------------------------------------ parts

    def weight(self, tensor: Tensor) -> Value:
        """The tensor on the device, rows first; uploaded at its first use."""
        if tensor.name not in self._weights:
            flat = torch.from_numpy(dequantize(tensor, self._leaves)).to(self.dtype)
            self._weights[tensor.name] = flat.reshape(tensor.shape[::-1]).to(self.device)
        return self._weights[tensor.name]

    def _vector(self, array: npt.NDArray[Any]) -> Value:
        if id(array) not in self._vectors:
            self._vectors[id(array)] = array, torch.from_numpy(array).to(self.device)
        return self._vectors[id(array)][1]

    def _cache(self, layer: int, heads: Heads) -> tuple[Value, Value]:
        if layer == len(self.caches):
            shape = self._slots, heads.head_count_kv
            keys = torch.zeros((*shape, heads.key_length), dtype=self.dtype, device=self.device)
            self.caches.append((keys, torch.zeros((*shape, heads.value_length), dtype=self.dtype, device=self.device)))
        return self.caches[layer]

    def _turn(self, x: Value, heads: Heads, rotation: Rotation) -> Value:
        """Rotary embedding of (rows, heads, size)."""
        frequencies = self._vector(rotation.frequencies)  # f64: positions times frequencies need it
        angles = self.now.positions[:, None] * frequencies
        cos, sin = ((part * rotation.magnitude).float()[:, None] for part in (angles.cos(), angles.sin()))
        half = len(rotation.frequencies)
        turning, rest = x[..., : 2 * half], x[..., 2 * half :]
        if heads.rope_interleaved:
            a, b = turning[..., 0::2], turning[..., 1::2]
            turned = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
        else:
            a, b = turning[..., :half], turning[..., half:]
            turned = torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
        return torch.cat((turned, rest), -1)

    def _attend(self, q: Value, keys: Value, values: Value, span: Span, heads: Heads) -> Value:
        """(rows, heads, size) against the keys and values of the span's text."""
        group = heads.head_count // heads.head_count_kv
        q = q.to(self.dtype).transpose(0, 1)
        k, v = (part.transpose(0, 1).repeat_interleave(group, 0) for part in (keys, values))
        rows = self.now.positions[span.first : span.last, None]
        mask = rows >= torch.arange(span.length, device=self.device)
        out = functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, scale=heads.scale)
        return out[0].transpose(0, 1).float()

    @staticmethod
    def _pairs(x: Value, ids: Value, weights: Value, gate: Value, up: Value, down: Value) -> Value:
        """Few rows: no look at the ids, so nothing waits for the device."""
        k = ids.shape[1]
        flat = ids.flatten()
        h = x.repeat_interleave(k, 0)[:, :, None]
        h = functional.silu(gate[flat] @ h) * (up[flat] @ h)
        y = (down[flat] @ h)[..., 0].float().unflatten(0, (-1, k))
        return (y * weights[..., None]).sum(1)

    @staticmethod
    def _by_expert(x: Value, ids: Value, weights: Value, gate: Value, up: Value, down: Value) -> Value:
        """Many rows: each expert that was chosen runs on its rows."""
        out = torch.zeros((len(x), down.shape[1]), dtype=torch.float32, device=x.device)
        for expert in ids.unique().tolist():
            row, place = torch.where(ids == expert)
            h = x[row]
            h = functional.silu(functional.linear(h, gate[expert])) * functional.linear(h, up[expert])
            y = functional.linear(h, down[expert]).float()
            out.index_add_(0, row, y * weights[row, place][:, None])
        return out


def dequantize(tensor: Tensor, leaves: Leaves) -> FloatArray:
    """All values of a tensor in float32, flat, by the CPU's leaves on all cores."""
    kind = tensor.quant
    leaf = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(leaves.dequantize_row(kind.name))
    blocks = tensor.nbytes // kind.block_bytes
    out = np.empty(blocks * kind.block_size, np.float32)

    def part(first: int) -> None:
        count = min(CHUNK_BLOCKS, blocks - first)
        leaf(tensor.address + first * kind.block_bytes, out.ctypes.data + 4 * first * kind.block_size, count)

    with ThreadPoolExecutor(cores.physical()) as pool:
        list(pool.map(part, range(0, blocks, CHUNK_BLOCKS)))
    return out
