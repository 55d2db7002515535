"""The forward pass on NVIDIA kernels: weights stay quantised, few rows run as captured graphs, many on tensor cores."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from runtime.core import FloatArray, ModelError
from runtime.cuda.module import U64
from runtime.execute.cuda_attention import CudaAttention
from runtime.execute.cuda_core import CHUNK, FEW, MOST_MATRICES, TILE_COLUMNS
from runtime.execute.cuda_delta import CudaDelta
from runtime.execute.cuda_experts import CudaExperts
from runtime.execute.cuda_structs import Groups
from runtime.execute.cuda_values import Value
from runtime.execute.shortlist import LIST_GROUPS, Shortlist
from runtime.kernels.activations import CODES
from runtime.layers.ops import Activation, Of, Part
from runtime.weights import Tensor

HEAD_ROWS = 32  # of heads.cu


class CudaOps(CudaAttention, CudaDelta, CudaExperts):
    """Implements runtime.layers.ops.Ops. `begin` comes before each forward pass."""

    def embed(self, table: Tensor, of: Of = "tokens") -> Value:
        weight, out = self.weight(table), self._new(table.shape[0])
        index = getattr(self._step, of)
        self._launch(
            "embed", (out.rows,), 256, weight.data, U64(weight.row_bytes), weight.type_id, index, out.data, out.width, out.count
        )
        return out

    def linear(self, x: Value, *weights: tuple[Tensor, FloatArray | None]) -> list[Value]:
        self._settle()
        outs = [self._like(x, tensor.rows) for tensor, _ in weights]
        matrices = [
            self._matrix(self.weight(tensor), out, None if bias is None else self._vector(bias))
            for (tensor, bias), out in zip(weights, outs, strict=True)
        ]
        if x.rows <= FEW:
            for first in range(0, len(matrices), MOST_MATRICES):
                self._matvec(x, matrices[first : first + MOST_MATRICES])
            return outs
        for matrix, out, (tensor, bias) in zip(matrices, outs, weights, strict=True):
            weight = self.weight(tensor)
            if weight.kind == "F32":  # a router, whose choice must not hang on f16
                values = weight.data.view(torch.float32).view(weight.rows, -1)
                torch.mm(x.data, values.T, out=out.data)
                if bias is not None:
                    out.data += self._vector(bias)
            else:
                self._matmul(x, matrix, None, Groups(share=1), 1, math.ceil(x.rows / TILE_COLUMNS))
        return outs

    def by_head(self, x: Value, weight: Tensor) -> Value:
        self._settle()
        n_in, n_out, heads = weight.shape
        own, out = self.weight(weight), self._like(x, heads * n_out)
        if x.rows <= FEW:
            parts = Value(x.data.view(x.rows * heads, n_in), x.count)  # has to live until the kernel is launched
            blocks = math.ceil(n_out / HEAD_ROWS), heads, x.rows
            matrix = own.data, U64(own.row_bytes), own.type_id
            self._launch("by_head", blocks, 256, *matrix, self._in_ints(parts, heads), out.data, n_out, x.count)
            return out
        unpacked = torch.empty((heads, n_out, n_in), dtype=torch.float16, device=self.device)
        grid = (math.ceil(unpacked.numel() / 2048),)
        self._launch("dequantize", grid, 256, own.data, own.type_id, unpacked, U64(unpacked.numel()))
        rows = x.data.view(x.rows, heads, n_in)
        scale = rows.abs().amax((1, 2), keepdim=True).clamp_(min=1e-30) / 16  # so that no sum in f16 overflows
        product = torch.bmm((rows / scale).half().transpose(0, 1), unpacked.transpose(1, 2))
        torch.mul(product.transpose(0, 1), scale, out=out.data.view(x.rows, heads, n_out))
        return out

    def join(self, heads: int, *parts: Part) -> Value:
        self._settle()
        pieces = [
            part.value.data.as_strided((part.value.rows, heads, part.size), (part.value.width, part.stride, 1), part.first)
            for part in parts
        ]
        return Value(torch.cat(pieces, -1).flatten(1), parts[0].value.count)

    def rms_norm(self, x: Value, weight: FloatArray, eps: float) -> Value:
        if x.width % 8:
            raise ModelError(f"rows of {x.width} values cannot be normed on the GPU")
        out, (pending, self._pending) = self._like(x, x.width), (self._pending, None)
        if pending and pending[2] is x:  # the sum is made on the way
            source, other = pending[0].data, pending[1].data
        else:
            self._pending, source, other = pending, x.data, None
        threads = min(1024, math.ceil(x.width / CHUNK) * 32)
        norm = self._vector(weight), out.data, self._packing(out, wanted=True), x.width, eps, x.count
        self._launch("rms_norm", (x.rows,), threads, source, other, x.data, *norm)
        return out

    def layer_norm(self, x: Value, weight: FloatArray, bias: FloatArray, eps: float) -> Value:
        self._settle()
        out = functional.layer_norm(x.data, x.data.shape[-1:], self._vector(weight), self._vector(bias), eps)
        return Value(out, x.count)

    def gated(self, gate: Value, up: Value, activation: Activation) -> Value:
        self._elementwise("gated", gate, up, gate, gate.width, CODES[activation])
        return gate

    def gelu(self, x: Value) -> Value:
        self._settle()
        return Value(functional.gelu(x.data, approximate="tanh"), x.count)

    def scale(self, x: Value, factor: float) -> Value:
        self._settle()
        return Value(x.data * factor, x.count)

    def gate_rows(self, x: Value, logits: Value) -> Value:
        self._settle()
        return Value(x.data * torch.sigmoid(logits.data), x.count)

    def softcap(self, x: Value, cap: float) -> Value:
        self._settle()
        return Value(torch.tanh(x.data / cap) * cap, x.count)

    def outputs(self, x: Value) -> Value:
        out = Value(torch.empty((self._outputs, x.width), device=self.device), self._step.outputs_count)
        self._launch("gather", (out.rows,), 256, x.data, self._step.outputs, out.data, x.width, out.count)
        return out

    def list_likeliest(self, logits: Value, best: Shortlist) -> None:
        """The highest of each row, on the host."""
        maxima = self._ints(logits.rows, LIST_GROUPS)
        self._launch("group_maxima", (LIST_GROUPS // 8, logits.rows), 256, logits.data, maxima, logits.width, logits.count)
        found = best.ids, best.logits, best.counts
        self._launch("shortlist", (logits.rows,), LIST_GROUPS, logits.data, maxima, logits.width, *found, logits.count)
