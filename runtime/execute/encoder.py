"""The CPU executor of embedding models: whole texts in, one vector each out, nothing kept between steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime import models
from runtime.core import FloatArray, IntArray, ModelError
from runtime.execute import strips
from runtime.execute.recorder import Recorder
from runtime.execute.step import Limits, Value, view
from runtime.kernels import attention, cores, encode
from runtime.kernels import compile as kernel_compile
from runtime.kernels.leaves import Leaves
from runtime.kernels.pool import Pool
from runtime.layers.classifier import Classifier
from runtime.layers.ops import Attending, Rotation
from runtime.models import Model
from runtime.models.bert import Encoder as BertEncoder
from runtime.weights import Progress, Tensor, Weights, aligned_array, open_weights

ROWS = 512  # tokens of a step at the least: fewer do not make the reading of the weights worth while
APART = 16  # values between rows of transposed values that would otherwise meet in one set of a cache
LEAF_TYPES = ("F16", "F32")  # of unpacked matrices; of keys and values, which are weights to the leaves
UNPACKED_BYTES = 1 << 30  # what the matrices of a model may take in F16
RANK = 4  # the pooling of models that rank, as GGUF numbers it
DRIVER_MODULES = ("interleave", "matmul", "rows", "encode")


class TextRecorder(Recorder):
    """Records attention within whole texts, in place of attention over a cache. `limits.outputs`: texts of a step.

    `unpacked` turns a packed matrix into one that multiplies float activations, or into itself.
    """

    def __init__(
        self, leaves: Leaves, threads: int, limits: Limits, longest: int, unpacked: Callable[[Tensor], Tensor], strip_rows: int
    ) -> None:
        super().__init__(leaves, threads, limits, strip_rows)
        self._unpacked = unpacked
        n_tiles = limits.rows // encode.TILE + limits.outputs
        self.starts: IntArray = aligned_array((limits.outputs + 1,), np.int32)  # rows where the texts begin
        self.tiles: IntArray = aligned_array((n_tiles, encode.TILE_FIELDS), np.int32)
        self.n_tiles: npt.NDArray[np.int64] = aligned_array((1,), np.int64)
        self._longest = longest

    def linear(self, x: Value, *weights: tuple[Tensor, FloatArray | None]) -> list[Value]:
        return super().linear(x, *((self._unpacked(tensor), bias) for tensor, bias in weights))

    def attention(self, q: Value, k: Value, v: Value, how: Attending) -> Value:
        heads, rotation = how.heads, how.rotation
        if how.sinks is not None or heads.softcap or 0 < heads.window < self._longest:
            raise ModelError("a model that makes vectors with attention of this kind is not supported")
        if rotation is not None:
            self._turn(q, k, how, rotation)
        stride = self._limits.rows + APART
        values = self._buffers.take(4 * stride * v.width)
        self._row(encode.transpose, v.count, v.address, v.width, values.address, stride)
        out = self._like(q, heads.head_count * heads.value_length)
        size = encode.scratch_bytes(self._longest)
        scratch = self._buffers.take(self._threads * size)
        self._row(
            encode.attend,
            *(self.n_tiles.ctypes.data, self.tiles.ctypes.data, q.address, k.address, values.address, stride, out.address),
            *(heads.head_count, heads.head_count_kv, heads.key_length, heads.value_length, int(heads.causal)),
            *(self._leaf_table("F32"), scratch.address, size, self._longest, heads.scale),
        )
        return out

    def _turn(self, q: Value, k: Value, how: Attending, rotation: Rotation) -> None:
        heads, norms = how.heads, how.norms
        q_norm, k_norm, eps = (self._keep(norms[0]), self._keep(norms[1]), norms[2]) if norms else (0, 0, 0.0)
        style = attention.INTERLEAVED if heads.rope_interleaved else attention.NEOX
        self._row(
            encode.turn,
            *(q.count, q.address, k.address, q_norm, k_norm),
            *(self._rotary_table(rotation).address, len(rotation.frequencies), style),
            *(heads.head_count, heads.head_count_kv, heads.key_length, eps),
        )

    def pool(self, x: Value, kind: int) -> Value:
        """One row for each text."""
        count, texts = self.step.counts.ctypes.data + 8, self._limits.outputs
        out = Value(self._buffers.take(4 * texts * x.width), x.width, count, texts)
        self._row(encode.pool, count, self.starts.ctypes.data, x.address, out.address, x.width, kind)
        return out

    def place(self, texts: Sequence[Sequence[int]]) -> None:
        """Write the texts of the next step into the buffers that the kernels read."""
        row = tile = 0
        for number, tokens in enumerate(texts):
            end = row + len(tokens)
            self.step.tokens[row:end] = tokens
            self.step.positions[row:end] = np.arange(len(tokens), dtype=np.int32)
            self.starts[number : number + 2] = row, end
            for first in range(row, end, encode.TILE):
                self.tiles[tile] = first, min(encode.TILE, end - first), row, end
                tile += 1
            row = end
        self.step.counts[:] = row, len(texts)
        self.n_tiles[0] = tile


class CpuEncoder:
    """Implements runtime.core.Encoder."""

    def __init__(
        self,
        weights: Weights,
        model: Model,
        leaves: Leaves,
        threads: int,
        longest: int,
        kind: int,
        head: Classifier | None = None,
    ) -> None:
        rows = max(longest, ROWS)
        self._weights = weights
        strip_rows = leaves.strip_rows if weights.writable else 0
        self._recorder = TextRecorder(leaves, threads, Limits(rows, rows, 1, 1, 1), longest, unpacked(weights), strip_rows)
        self._vectors = self._recorder.pool(model.states(self._recorder), kind)
        self._program = self._recorder.table()
        layout = self._recorder.layout()
        self._counters: npt.NDArray[np.int64] = aligned_array((max(len(self._program), len(layout)), 8), np.int64)
        self._pool = Pool(threads, lasting=True)
        if len(layout):
            self._pool.run(layout, self._counters)
        self._closed = False
        self._head = head
        self.ranks = head is not None
        config = model.config
        self.n_vocab = config.n_vocab
        self.n_ctx_train = config.context_length
        self.longest = longest
        self.max_rows = rows
        self.size = weights.resident + self._recorder.nbytes()
        self.size_vram = 0
        plural = "s" if threads > 1 else ""
        self.placement = f"{config.block_count} layers on the CPU ({weights.nbytes / 2**20:.0f} MiB), {threads} thread{plural}"

    def encode(self, texts: Sequence[Sequence[int]]) -> FloatArray:
        """Vectors (texts, width), as the model makes them; the view is valid until the next call."""
        assert texts
        assert all(0 < len(tokens) <= self.longest for tokens in texts)
        assert sum(map(len, texts)) <= self.max_rows
        self._recorder.place(texts)
        self._pool.run(self._program, self._counters)
        vectors = view(self._vectors, len(texts))
        return vectors if self._head is None else self._head(vectors)

    def close(self) -> None:
        """Stop the threads, then give the weights back."""
        if not self._closed:
            self._closed = True
            self._pool.close()
            self._weights.close()


def kernels(leaves: Leaves, tensors: Iterable[Tensor]) -> list[str]:
    """Names of the kernels that a model of these tensors needs."""
    types = {*LEAF_TYPES, *(tensor.quant.name for tensor in tensors)}
    return kernel_compile.names(leaves.tier, types, DRIVER_MODULES, strips.woven(types, leaves.strip_rows))


def unpacked(weights: Weights) -> Callable[[Tensor], Tensor]:
    """How matrices are multiplied. Activations rounded to int8 move the vector of a short text by a cosine of 0.001, so
    packed matrices become F16; only those of large models stay as they are, which suffer less and would take too much."""
    matrices = sum(tensor.shape[0] * tensor.rows for tensor in weights if len(tensor.shape) == 2 and "token" not in tensor.name)
    if 2 * matrices > UNPACKED_BYTES:
        return lambda tensor: tensor
    return lambda tensor: tensor if tensor.quant.activation == "f32" else weights.unpacked(tensor)


def load(
    path: str | Path, *, num_ctx: int, num_batch: int, num_thread: int, adapters: Sequence[str] = (), progress: Progress
) -> CpuEncoder:
    """Read a GGUF model that makes vectors of texts. Raises GGUFError, ModelError or MemoryError."""
    weights = open_weights(path, progress, adapters)
    model = models.build_any(weights)
    kind, head = model.config.pooling_type, None
    if kind == RANK:
        head = Classifier(weights, model.config)
        kind = encode.CLS if isinstance(model, BertEncoder) else encode.LAST
    if kind not in (encode.MEAN, encode.CLS, encode.LAST):
        raise ModelError(f"key '{model.config.architecture}.pooling_type' is {kind}, which is not supported")
    leaves = Leaves()
    kernel_compile.keep(leaves, kernels(leaves, weights), progress)
    threads = num_thread if num_thread > 0 else cores.physical()
    longest = min(num_ctx, model.config.context_length)
    # llama-server reads a text in pieces where its last token alone counts; others it takes whole, up to its batch
    if kind != encode.LAST or isinstance(model, BertEncoder):
        longest = min(longest, num_batch)
    return CpuEncoder(weights, model, leaves, threads, max(1, longest), kind, head)
