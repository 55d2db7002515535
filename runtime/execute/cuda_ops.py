"""The forward pass on NVIDIA kernels: weights stay quantised, few rows run as captured graphs, many on tensor cores."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from runtime.core import BLOCK_TOKENS, Batch, FloatArray, ModelError
from runtime.cuda.blocks import BlockMemory
from runtime.cuda.module import U64, Module
from runtime.execute.device_step import DeviceStep
from runtime.execute.experts import KINDS, LOOKED_UP, STREAMED, Layer, Residence, stack
from runtime.execute.long_texts import SCORES, is_plain
from runtime.execute.mailbox import Mailbox
from runtime.execute.shortlist import LIST_GROUPS, Shortlist
from runtime.kernels import cores
from runtime.kernels.activations import CODES
from runtime.kernels.leaves import Leaves
from runtime.layers.ops import Activation, Experts, Heads, Of, Part, Rotation, Routing
from runtime.quants import BY_NAME, TYPES, QuantType
from runtime.weights import Tensor

FEW = 16  # rows that are multiplied one by one, from registers, and whose experts run pair by pair; more: by tensor cores
COLUMNS = 8  # rows of x that a block of matvec.cu takes, at the most
PCIE_ROWS = 2  # rows of a step that may read experts over PCIe: more would read the same one several times
SHORT = 8  # rows of one text that attend as single rows; more attend together
TILE_ROWS, TILE_COLUMNS = 128, 64  # BM, BN of matmul.cu
DOWN_ROWS = 4  # rows of w of a block of experts.cu
MOST_EXPERTS = 1024  # of experts.cu
HEAD_ROWS = 32  # of heads.cu
WARP = 32  # of its groups, and of the experts of a token, at the most
MOST_MATRICES = 4  # of one launch of matvec.cu
HEAD_VALUES = (1, 2, 3, 4, 6, 8, 16, 18)  # values of a head that a lane of attention.cu holds
FORMATS = ("q8_k", "q8_0")  # of rows in int8: Format of packed.cu; FLOATS: of rows that stay as they are
FLOATS = len(FORMATS)
CHUNK, CHUNK_BYTES = 256, 320  # values and bytes of a row in int8, of packed.cu
STEP_INTS, STEP_FLOATS = 1024, 256  # values that a warp of matvec.cu takes at a time
CHUNK_BLOCKS = 1 << 16  # blocks dequantised by one task
WARPS_WANTED = 2048  # of a product: fewer leave an H100's memory waiting
BLOCKS_WANTED = 528  # of threads, four on each of an H100's multiprocessors: attention is split until there are so many


class Matrix(ctypes.Structure):
    """`Matrix` of runtime/cuda/source/matvec.cu."""

    _fields_ = (
        ("w", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("row_bytes", ctypes.c_uint64),
        ("rows", ctypes.c_int),
        ("type", ctypes.c_int),
    )


class Rows(ctypes.Structure):
    """`Rows` of runtime/cuda/source/packed.cu."""

    _fields_ = (("x", ctypes.c_void_p), ("packed", ctypes.c_void_p * len(FORMATS)), ("width", ctypes.c_int))


class Packing(ctypes.Structure):
    """`Packing` of runtime/cuda/source/packed.cu."""

    _fields_ = (("out", ctypes.c_void_p * len(FORMATS)),)


class Groups(ctypes.Structure):
    """`Groups` of runtime/cuda/source/matmul.cu."""

    _fields_ = (
        ("tiles", ctypes.c_void_p),
        ("n_tiles", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("share", ctypes.c_int),
    )


class HeadShape(ctypes.Structure):
    """`Heads` of runtime/cuda/source/attention.cu."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("q", "kv", "key", "value")),
        ("scale", ctypes.c_float),
        ("window", ctypes.c_int),
        ("value_eps", ctypes.c_float),
        ("softcap", ctypes.c_float),
    )


class Router(ctypes.Structure):
    """`Routing` of runtime/cuda/source/experts.cu."""

    _fields_ = (
        ("bias", ctypes.c_void_p),
        ("factors", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("experts", "k", "normalize", "gating", "groups", "groups_used")),
        ("scale", ctypes.c_float),
    )


class Pages(ctypes.Structure):
    """`Pages` of runtime/cuda/source/attention.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("positions", "sequences", "tables")),
        ("width", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
    )


@dataclasses.dataclass(eq=False, slots=True)
class Value:
    """Rows of float32 on the device; `count`: how many of them count in this step, int32 on the device."""

    data: torch.Tensor
    count: torch.Tensor
    halves: tuple[torch.Tensor, torch.Tensor] | None = None  # f16 and its scale by row, for the tensor cores
    ints: dict[int, torch.Tensor] = dataclasses.field(default_factory=dict)
    """By format: the rows in int8, where these are few."""

    @property
    def rows(self) -> int:
        return len(self.data)

    @property
    def width(self) -> int:
        return int(self.data.shape[1])


@dataclasses.dataclass(frozen=True, slots=True)
class Weight:
    """A matrix on the device."""

    data: torch.Tensor
    kind: str
    row_bytes: int
    rows: int

    @property
    def type_id(self) -> int:
        return BY_NAME[self.kind].type_id

    def part(self, first: int, rows: int) -> Weight:
        """Some of its rows, in its memory."""
        start = first * self.row_bytes
        return Weight(self.data[start : start + rows * self.row_bytes], self.kind, self.row_bytes, rows)



def format_of(kind: QuantType) -> int:
    """The format of the rows that such a matrix is multiplied with."""
    return FORMATS.index(kind.activation) if kind.cuda_ints else FLOATS


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """What a router chose, (rows, k) each, and the addresses of a layer's experts, (3, experts)."""

    ids: torch.Tensor
    weights: torch.Tensor
    where: torch.Tensor  # `Where` of runtime/cuda/source/experts.cu
    k: int
    table: torch.Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """Rows [first, last) of a step: one text's, which is `length` tokens long after them and has line `line` of the tables."""

    first: int
    last: int
    length: int
    line: int


def spans(batch: Batch) -> list[Span]:
    """The texts of a batch."""
    edges = [0, *(np.flatnonzero(np.diff(batch.sequences)) + 1).tolist(), len(batch.tokens)]
    return [
        Span(first, last, int(batch.positions[last - 1]) + 1, int(batch.sequences[first]))
        for first, last in itertools.pairwise(edges)
    ]


class CudaOps:
    """Implements runtime.layers.ops.Ops. `begin` comes before each forward pass."""

    def __init__(self, module: Module, step: DeviceStep, blocks: BlockMemory, leaves: Leaves, kinds: Iterable[QuantType]) -> None:
        """`kinds`: the types of the model's matrices."""
        self.device = module.device
        self.caches: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by layer: (blocks, kv heads, 64, size) in f16
        self.residences: dict[str, Residence] = {}  # by the gate's name
        self.mailbox: Mailbox | None = None
        self.over_pcie = 0.0  # of the experts that are not in VRAM, the part that the GPU reads from the host's memory
        self.table_of: Callable[[Residence], torch.Tensor | None] = lambda residence: None  # of streamed experts
        self.after: Callable[[Residence], None] = lambda residence: None
        self._module = module
        self._step = step
        self._blocks = blocks
        self._leaves = leaves
        self._formats = sorted({format_of(kind) for kind in kinds} - {FLOATS})
        self._weights: dict[str, Weight] = {}
        self._vectors: dict[int, tuple[Any, torch.Tensor]] = {}  # by id; the array is kept so that the id stays its own
        self._turns: list[tuple[Rotation, torch.Tensor]] = []
        self._sent = torch.zeros(1, dtype=torch.int32, device=self.device)
        self._rows = self._outputs = 1
        self._pending: tuple[Value, Value, Value] | None = None  # x, y and their sum, which most often is normed at once
        self._long: list[tuple[Span, torch.Tensor]] = []  # with the numbers of its text's blocks, on the device
        self._short: tuple[torch.Tensor, torch.Tensor, int] | None = None  # rows, how many, and that on the host

    def begin(self, rows: int, outputs: int, batch: Batch | None) -> None:
        """A step with buffers for `rows` and `outputs`. With its batch, long runs of one text attend together; without (in a
        graph), every row attends alone."""
        self._rows, self._outputs, self._turns, self._pending = rows, outputs, [], None
        self._long, self._short = [], None
        if batch is not None:
            texts = spans(batch)
            self._long = [(span, self._blocks_of(span, batch)) for span in texts if span.last - span.first > SHORT]
            rest = [row for span in texts if span.last - span.first <= SHORT for row in range(span.first, span.last)]
            listed = torch.tensor([*rest, len(rest)], dtype=torch.int32).to(self.device)
            self._short = listed[:-1], listed[-1:], len(rest)

    @property
    def rows(self) -> int:
        """Rows that this step has buffers for."""
        return self._rows

    def given(self, data: torch.Tensor) -> Value:
        """Rows that somebody else has computed for this step."""
        return Value(data, self._step.rows_count)

    # ------------------------------------------------------------ Ops

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
                grid = math.ceil(weight.rows / TILE_ROWS), math.ceil(x.rows / TILE_COLUMNS)
                self._launch("matmul", grid, 256, matrix, None, Groups(share=1), *self._halves(x), x.width, x.count)
        return outs

    def by_head(self, x: Value, weight: Tensor) -> Value:
        self._settle()
        n_in, n_out, heads = weight.shape
        own, out = self.weight(weight), self._like(x, heads * n_out)
        if x.rows <= FEW:
            parts = Value(x.data.view(x.rows * heads, n_in), x.count)  # has to live until the kernel is launched
            blocks = math.ceil(n_out / HEAD_ROWS), heads, x.rows
            matrix = own.data, U64(own.row_bytes), own.type_id
            self._launch("by_head", blocks, 256, *matrix, self._few(parts, heads), out.data, n_out, x.count)
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
        norm = self._vector(weight), out.data, self._packing(out, wanted=x.rows <= FEW), x.width, eps, x.count
        self._launch("rms_norm", (x.rows,), threads, source, other, x.data, *norm)
        return out

    def layer_norm(self, x: Value, weight: FloatArray, bias: FloatArray, eps: float) -> Value:
        self._settle()
        out = functional.layer_norm(x.data, x.data.shape[-1:], self._vector(weight), self._vector(bias), eps)
        return Value(out, x.count)

    def attention(
        self,
        layer: int,
        q: Value,
        k: Value,
        v: Value,
        heads: Heads,
        rotation: Rotation | None,
        norms: tuple[FloatArray, FloatArray, float] | None,
        sinks: FloatArray | None = None,
    ) -> Value:
        if not heads.causal:
            raise ModelError("this model needs whole texts: it makes vectors of them, and no text of its own")
        shape = HeadShape(
            *(heads.head_count, heads.head_count_kv, heads.key_length, heads.value_length),
            *(heads.scale, heads.window, heads.value_eps, heads.softcap),
        )
        own = self._vector(sinks) if sinks is not None else None
        keys, values = self._cache(layer, heads)
        step = self._step
        pages = Pages(*(part.data_ptr() for part in (step.positions, step.sequences, step.tables)), step.table,
                      keys.data_ptr(), values.data_ptr())  # fmt: skip
        weights = (self._vector(norms[0]), self._vector(norms[1]), norms[2]) if norms else (None, None, 0.0)
        tasks = q.rows * (heads.head_count + 2 * heads.head_count_kv)
        table, half = (self._turn_table(rotation), len(rotation.frequencies)) if rotation else (None, 0)
        self._launch(
            "rotate_store", (math.ceil(tasks / 8),), 256,
            *(q.data, k.data, v.data, *weights, table, half, int(heads.rope_interleaved)),
            *(shape, pages, q.count),
        )  # fmt: skip
        out = self._like(q, heads.head_count * heads.value_length)
        for span, table in self._long:
            part = slice(span.first, span.last)
            out.data[part] = self._attend_long(q.data[part], keys, values, span, table, heads, own)
        if self._short is None:
            self._attend_rows(q, out, heads, shape, pages, own, None, q.count, q.rows)
        elif self._short[2]:
            self._attend_rows(q, out, heads, shape, pages, own, *self._short)
        return out

    def gated(self, gate: Value, up: Value, activation: Activation) -> Value:
        self._elementwise("gated", gate, up, gate, gate.width, CODES[activation])
        return gate

    def gelu(self, x: Value) -> Value:
        self._settle()
        return Value(functional.gelu(x.data, approximate="tanh"), x.count)

    def experts(
        self, x: Value, logits: Value, experts: Experts, routing: Routing, beside: Callable[[], Value] | None = None
    ) -> Value:
        residence = self.residences[experts.gate.name]
        streamed = self.table_of(residence)
        complete = residence.complete or streamed is not None
        over_pcie = 0.0 if complete or x.rows > PCIE_ROWS else self.over_pcie
        table = residence.addresses if streamed is None else streamed
        uses = None if residence.uses is None else residence.uses[LOOKED_UP if streamed is None else STREAMED]
        choice = self._choose(x, logits, table, routing, over_pcie, uses)
        if not complete:
            self._send(x, choice)
        run = self._few_experts if x.rows <= FEW else self._many_experts
        own = run(x, residence.layer, choice) if complete or residence.slots or over_pcie else None
        self.after(residence)
        other = beside() if beside else None  # while the CPU computes
        out = own if own is not None and complete else self._receive(x, own)
        return out if other is None else self.add(out, other)

    def add(self, x: Value, y: Value) -> Value:
        self._settle()
        out = self._like(x, x.width)
        self._pending = x, y, out
        return out

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

    # ------------------------------------------------------------ parts

    def weight(self, tensor: Tensor) -> Weight:
        """The tensor on the device; uploaded at its first use. A type without CUDA code goes there as F16."""
        if tensor.name not in self._weights:
            whole, first = tensor.whole or ("", 0)
            known = self._weights.get(whole)
            self._weights[tensor.name] = known.part(first, tensor.rows) if known else self._upload(tensor)
        return self._weights[tensor.name]

    def tensor_of(self, arguments: Iterable[Any]) -> str:
        """The name of the first matrix among the arguments of a launch; empty where there is none."""
        names = {weight.data.data_ptr(): name for name, weight in self._weights.items()}
        several = (argument if isinstance(argument, ctypes.Array) else [argument] for argument in arguments)
        matrices = (each for group in several for each in group if isinstance(each, Matrix))
        return next((names[matrix.w] for matrix in matrices if matrix.w in names), "")

    def _upload(self, tensor: Tensor) -> Weight:
        if tensor.shape[0] % 8:
            raise ModelError(f"tensor {tensor.name!r} has rows of {tensor.shape[0]} values, which the GPU cannot divide by 8")
        if tensor.quant.cuda:
            data = memory(tensor.address, tensor.nbytes).to(self.device)
            return Weight(data, tensor.quant.name, tensor.row_bytes, tensor.rows)
        values = torch.from_numpy(dequantize(tensor, self._leaves)).to(torch.float16)
        return Weight(values.view(torch.uint8).to(self.device), "F16", 2 * tensor.shape[0], tensor.rows)

    def _matrix(self, weight: Weight, out: Value, bias: torch.Tensor | None) -> Matrix:
        return Matrix(
            *(weight.data.data_ptr(), bias.data_ptr() if bias is not None else None, out.data.data_ptr()),
            *(weight.row_bytes, weight.rows, weight.type_id),
        )

    def _matvec(self, x: Value, matrices: list[Matrix]) -> None:
        columns = min(COLUMNS, x.rows)
        together = 4 if columns < COLUMNS else 2  # rows of w of a task: `together` of matvec.cu
        tasks = sum(math.ceil(matrix.rows / together) for matrix in matrices)
        step = STEP_INTS if all(TYPES[matrix.type].cuda_ints for matrix in matrices) else STEP_FLOATS
        shift = next((n for n in range(3) if tasks << n >= WARPS_WANTED or step << n >= x.width), 3)
        every = (Matrix * MOST_MATRICES)(*matrices)
        grid = math.ceil((tasks << shift) / 8), math.ceil(x.rows / columns)
        self._launch(f"matvec_{columns}", grid, 256, every, len(matrices), self._few(x), shift, x.count)

    def _halves(self, x: Value, share: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """x in f16 and its scales; made once. `share`: rows of x for each one that is counted."""
        if x.halves is None:
            halves = torch.empty((x.rows, x.width), dtype=torch.float16, device=self.device)
            scales = torch.empty(x.rows, device=self.device)
            self._launch("pack", (x.rows,), 256, x.data, halves, scales, x.width, x.count, share)
            x.halves = halves, scales
        return x.halves

    def _few(self, x: Value, share: int = 1) -> Rows:
        """Few rows of x, packed where that is not done; `share` as above."""
        if x.ints.keys() != set(self._formats):
            grid = math.ceil(x.width / CHUNK / 8), x.rows
            self._launch("pack_rows", grid, 256, x.data, self._packing(x, wanted=True), x.width, x.count, share)
        return Rows(x.data.data_ptr(), self._addresses(x), x.width)

    def _packing(self, x: Value, *, wanted: bool) -> Packing:
        """Where the kernel that makes x shall leave it in int8."""
        if wanted:
            nbytes = x.rows * math.ceil(x.width / CHUNK) * CHUNK_BYTES
            x.ints = {kind: torch.empty(nbytes, dtype=torch.uint8, device=self.device) for kind in self._formats}
        return Packing(self._addresses(x))

    @staticmethod
    def _addresses(x: Value) -> Any:
        """Of its rows in int8, by format; null for those that there are none of."""
        return (ctypes.c_void_p * FLOATS)(*(x.ints[kind].data_ptr() if kind in x.ints else None for kind in range(FLOATS)))

    def _choose(
        self, x: Value, logits: Value, table: torch.Tensor, routing: Routing, over_pcie: float, uses: torch.Tensor | None
    ) -> Choice:
        k, groups = routing.expert_used_count, routing.group_count
        if max(k, groups) > WARP:
            raise ModelError(f"{k} experts a token, of {groups} groups, are too many for the GPU")
        vectors = (routing.bias, routing.expert_scale)
        bias, factors = (None if vector is None else self._vector(vector).data_ptr() for vector in vectors)
        router = Router(
            *(bias, factors, table.shape[1], k, int(routing.normalize), routing.gating),
            *(groups, routing.group_used_count, routing.scale),
        )
        choice = Choice(self._ints(x.rows, k), self._floats(x.rows, k), self._ints(x.rows, k), k, table)
        chosen = choice.ids, choice.weights, choice.where
        self._launch("choose", (math.ceil(x.rows / 4),), 128, logits.data, table[0], over_pcie, *chosen, uses, router, x.count)
        return choice

    def _send(self, x: Value, choice: Choice) -> None:
        assert self.mailbox is not None
        assert x.rows <= self.mailbox.rows
        chosen = choice.ids, choice.weights, choice.where, choice.k
        self._launch("send", (1,), 1024, self.mailbox.box, x.data, *chosen, x.width, self._sent, x.count)

    def _receive(self, x: Value, own: Value | None) -> Value:
        """The CPU's sum, and the GPU's own where it has one."""
        assert self.mailbox is not None
        out = self._like(x, x.width)
        own_data = None if own is None else own.data
        self._launch("receive", (1,), 1024, self.mailbox.box, own_data, out.data, out.width, self._sent, x.count)
        return out

    def _few_experts(self, x: Value, layer: Layer, choice: Choice) -> Value:
        """Pair by pair; those over PCIe too."""
        gate, up, down = (stack(layer, kind, choice.table, self._bias(layer, kind)) for kind in range(KINDS))
        activation = CODES[layer.matrices.activation]
        hidden = Value(self._floats(x.rows * choice.k, gate.rows), x.count)
        grid = math.ceil(gate.rows / 16), x.rows * choice.k
        pairs = choice.ids, choice.where, choice.k
        self._launch("expert_hidden", grid, 256, gate, up, self._few(x), *pairs, hidden.data, activation, x.count)
        out = self._like(x, down.rows)
        chosen = choice.ids, choice.where, choice.weights, choice.k
        grid = math.ceil(down.rows / DOWN_ROWS), x.rows
        self._launch("expert_down", grid, 256, down, self._few(hidden, choice.k), *chosen, out.data, x.count)
        return out

    def _many_experts(self, x: Value, layer: Layer, choice: Choice) -> Value:
        """Sorted by expert, each expert's rows on the tensor cores."""
        k, pairs = choice.k, x.rows * choice.k
        most_tiles = min(pairs, pairs // TILE_COLUMNS + layer.experts)
        order, tiles, n_tiles = self._ints(pairs), self._ints(most_tiles, 4), self._ints(1)
        plan = order, tiles, n_tiles
        self._launch("plan", (1,), 1024, choice.ids, choice.where, layer.experts, k, *plan, x.count)

        def product(kind: int, of: Value, share: int) -> Value:
            tensor = layer.tensors[kind]
            out = Value(self._floats(pairs, tensor.rows), x.count)
            bias = self._bias(layer, kind)
            matrix = Matrix(None, bias, out.data.data_ptr(), tensor.row_bytes, tensor.rows, tensor.quant.type_id)
            groups = Groups(tiles.data_ptr(), n_tiles.data_ptr(), order.data_ptr(), share)
            grid = math.ceil(tensor.rows / TILE_ROWS), most_tiles
            halves = self._halves(of, 1 if share == k else k)
            self._launch("matmul", grid, 256, matrix, choice.table[kind], groups, *halves, of.width, x.count)
            return out

        hidden, up = product(0, x, k), product(1, x, k)
        self._elementwise("gated", hidden, up, hidden, k * hidden.width, CODES[layer.matrices.activation])
        y = product(2, hidden, 1)
        out = self._like(x, y.width)
        self._launch("combine", (x.rows,), 256, y.data, choice.where, choice.weights, k, out.data, out.width, x.count)
        return out

    def _attend_rows(
        self,
        q: Value,
        out: Value,
        heads: Heads,
        shape: HeadShape,
        pages: Pages,
        sinks: torch.Tensor | None,
        listed: torch.Tensor | None,
        count: torch.Tensor,
        n: int,
    ) -> None:
        """Single rows, each against its whole text, which is split among several blocks of threads."""
        group = heads.head_count // heads.head_count_kv
        together = next(size for size in (4, 2, 1) if group % size == 0)
        need = math.ceil(max(heads.key_length, heads.value_length) / 32)
        per = next((size for size in HEAD_VALUES if size >= need), 0)
        if not per:
            raise ModelError(f"heads of {heads.key_length} values are too large for the GPU")
        blocks = n * heads.head_count // together
        splits = max(1, min(32, BLOCKS_WANTED // blocks))
        part = torch.empty((n, heads.head_count, splits, 2 + heads.value_length), device=self.device)
        grid = splits, heads.head_count // together, n
        self._launch(f"attend_{together}_{per}", grid, 128, q.data, part, shape, pages, listed, count)
        packing = self._packing(out, wanted=out.rows <= FEW and not self._long)  # a long text's rows come from elsewhere
        joins = math.ceil(out.width / CHUNK), n
        self._launch("attend_join", joins, 256, part, out.data, packing, shape, pages, splits, sinks, listed, count)

    def _blocks_of(self, span: Span, batch: Batch) -> torch.Tensor:
        """The blocks of a text, int64."""
        n_blocks = -(-span.length // BLOCK_TOKENS)
        return torch.from_numpy(batch.tables[span.line, :n_blocks].astype(np.int64)).to(self.device)

    @staticmethod
    def _attend_long(
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        span: Span,
        table: torch.Tensor,
        heads: Heads,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Many rows of one text, (rows, heads * size): torch's fused attention over the text's gathered blocks."""
        if sinks is not None or not is_plain(heads):
            return attend_text(q, keys, values, span.length, table, heads, sinks)
        group = heads.head_count // heads.head_count_kv

        def text(cache: torch.Tensor) -> torch.Tensor:  # -> (heads, tokens, size)
            return cache[table].transpose(0, 1).flatten(1, 2)[:, : span.length].repeat_interleave(group, 0)

        rows = span.last - span.first
        query = q.view(rows, heads.head_count, heads.key_length).transpose(0, 1).half()
        attend: Any = functional.scaled_dot_product_attention
        arguments = query[None], text(keys)[None], text(values)[None]
        if rows == span.length:
            out = attend(*arguments, is_causal=True, scale=heads.scale)
        else:
            from torch.nn.attention.bias import causal_lower_right

            out = attend(*arguments, attn_mask=causal_lower_right(rows, span.length), scale=heads.scale)
        result: torch.Tensor = out[0].transpose(0, 1).flatten(1).float()
        return result

    def _turn_table(self, rotation: Rotation) -> torch.Tensor:
        """cos and sin of the step's positions, (rows, half, 2); made once a step."""
        for known, table in self._turns:
            if known is rotation:
                return table
        half = len(rotation.frequencies)
        table = torch.empty((self._rows, half, 2), device=self.device)
        frequencies, step = self._vector(rotation.frequencies), self._step
        magnitude = float(rotation.magnitude)
        self._launch("rotary_table", (self._rows,), 64, step.positions, frequencies, table, half, magnitude, step.rows_count)
        self._turns.append((rotation, table))
        return table

    def _cache(self, layer: int, heads: Heads) -> tuple[torch.Tensor, torch.Tensor]:
        if layer not in self.caches:
            shape = heads.head_count_kv, BLOCK_TOKENS
            keys = self._blocks.array((*shape, heads.key_length), torch.float16)
            self.caches[layer] = keys, self._blocks.array((*shape, heads.value_length), torch.float16)
        return self.caches[layer]

    def _vector(self, array: npt.NDArray[Any]) -> torch.Tensor:
        if id(array) not in self._vectors:
            self._vectors[id(array)] = array, torch.from_numpy(array).to(self.device)
        return self._vectors[id(array)][1]

    def _bias(self, layer: Layer, kind: int) -> int | None:
        """Address of the biases of all experts of a layer, where they have some."""
        biases = layer.matrices.biases
        return None if biases is None else self._vector(biases[kind]).data_ptr()

    def _elementwise(self, kernel: str, x: Value, y: Value, out: Value, width: int, *more: int) -> None:
        """On `width` values of each row that is counted."""
        blocks = max(1, min(2048, math.ceil(x.rows * x.width / 1024)))
        self._launch(kernel, (blocks,), 256, x.data, y.data, out.data, width, x.count, *more)

    def _new(self, width: int) -> Value:
        return Value(torch.empty((self._rows, width), device=self.device), self._step.rows_count)

    def _like(self, x: Value, width: int) -> Value:
        return Value(torch.empty((x.rows, width), device=self.device), x.count)

    def _floats(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, device=self.device)

    def _ints(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.int32, device=self.device)

    def _settle(self) -> None:
        """Make the sum that `add` has promised."""
        if self._pending:
            (x, y, out), self._pending = self._pending, None
            self._elementwise("add", x, y, out, x.width)

    def _launch(self, name: str, grid: tuple[int, ...], threads: int, *arguments: Any) -> None:
        self._settle()
        self._module.launch(name, grid, threads, *arguments)


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


def memory(address: int, nbytes: int) -> torch.Tensor:
    """Host memory as a tensor of bytes, without a copy."""
    return torch.from_numpy(np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address)))


def attend_text(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    length: int,
    table: torch.Tensor,
    heads: Heads,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """The last rows of a text of `length` tokens, (rows, heads * size): for heads that no fused attention takes. `table`: the
    text's blocks in `keys` and `values`, (blocks, kv heads, 64, size)."""
    rows, kv = len(q), heads.head_count_kv
    query = q.view(rows, kv, heads.head_count // kv, heads.key_length).permute(1, 2, 0, 3) * heads.scale
    step = max(1, SCORES // (heads.head_count * length))
    parts = [
        _attend_part(query[:, :, first : first + step], keys, values, length - rows + first, table, heads, sinks)
        for first in range(0, rows, step)
    ]
    return torch.cat(parts, 2).permute(2, 0, 1, 3).flatten(1)


def _attend_part(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    position: int,
    table: torch.Tensor,
    heads: Heads,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Rows from `position` on, (kv heads, group, rows, size), against the blocks of what they see."""
    rows = query.shape[2]
    start = max(0, position + 1 - heads.window) // BLOCK_TOKENS * BLOCK_TOKENS if heads.window else 0
    end = position + rows
    seen = table[start // BLOCK_TOKENS : -(-end // BLOCK_TOKENS)]
    key, value = (cache[seen].transpose(0, 1).flatten(1, 2)[:, None, : end - start].float() for cache in (keys, values))
    scores = query @ key.transpose(-1, -2)
    if heads.softcap:
        scores = torch.tanh(scores / heads.softcap) * heads.softcap
    own = torch.arange(position, end, device=query.device)[:, None]
    tokens = torch.arange(start, end, device=query.device)
    hidden = tokens > own
    if heads.window:
        hidden |= tokens <= own - heads.window
    scores.masked_fill_(hidden, -torch.inf)
    if sinks is not None:
        sink = sinks.view(*query.shape[:2], 1, 1).expand(-1, -1, rows, 1)
        return torch.cat((scores, sink), -1).softmax(-1)[..., :-1] @ value
    return scores.softmax(-1) @ value


def layer_of(experts: Experts) -> Layer:
    """A layer's experts; ModelError where the GPU's kernels cannot read them."""
    gate, up, down = experts.gate, experts.up, experts.down
    if gate.shape[2] > MOST_EXPERTS:
        raise ModelError(f"{gate.shape[2]} experts are too many for the GPU")
    for tensor in (gate, up, down):
        if not tensor.quant.cuda or tensor.shape[0] % 8:
            raise ModelError(f"tensor {tensor.name!r} of type {tensor.quant.name} cannot run on the GPU")
        if tensor.apart:
            raise ModelError(f"tensor {tensor.name!r} stays in its file as a part of another one, and cannot run on the GPU")
    return Layer(experts)
