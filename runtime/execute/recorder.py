"""The recorder: runs a forward pass once and writes down, as a Program, what the kernels are to do at every step.

What changes from step to step (how many rows, which tokens, positions, block tables) lies in buffers that the Program's rows
point to, so one Program serves every batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from runtime.core import BLOCK_TOKENS, FloatArray, IntArray, ModelError
from runtime.execute.buffers import Buffer, Buffers
from runtime.execute.program import Row, Table, packed, table_of
from runtime.execute.reserve import reserved_array
from runtime.execute.step import Cache, Limits, State, Step, Value
from runtime.execute.strips import Strips
from runtime.kernels import (
    activations,
    attention,
    delta,
    delta_leaves,
    encode,
    interleave,
    matmul,
    reshape,
    router,
    rows,
    segments,
    tile_leaves,
)
from runtime.kernels.driver import Driver
from runtime.kernels.kept import F16, Kept
from runtime.kernels.leaves import COLUMNS, Leaves, activation_bytes
from runtime.kernels.matmul import PIECES
from runtime.layers.ops import Activation, Attending, DeltaWeights, Experts, Heads, Of, Part, Recurrence, Rotation, Routing
from runtime.weights import Tensor, aligned_array

SMALLEST_PIECE = 4  # weight rows
PACKING = {rows.rms_norm: (3, 6), rows.gated: (1, 5)}
"""Kernels that can pack what they make: which argument is its address, and which the first of those that say how to."""
UNPACKED_BYTES = 256 << 10  # of unpacked rows that a thread has at a time
PIECE_BYTES = 512 << 10  # of weights at the most, so that they stay in the L2 cache for all rows of a prompt

class Recorder:
    """Implements runtime.layers.ops.Ops for the CPU.

    `strip_rows`: matrices whose type has strips of so many rows are multiplied in them; then `layout` is to run before the
    first step, and changes the weights in memory. 0: weights are read as the file has them. `kept`: the type of keys and values.
    """

    def __init__(self, leaves: Leaves, threads: int, limits: Limits, strip_rows: int = 0, kept: Kept = F16) -> None:
        self.step = Step(limits)
        self.caches: list[Cache] = []
        self.states: list[State] = []
        self.program: list[Row] = []
        self.labels: list[str] = []  # of each row: the first tensor that it multiplies by, else its kernel
        self._leaves = leaves
        self._threads = threads
        self._limits = limits
        self._kept_as = kept
        self._buffers = Buffers()
        self._kept: list[object] = []  # arrays whose addresses the rows hold
        self._tables: dict[str, int] = {}  # leaf tables by type name
        self._strips = Strips(leaves, strip_rows)
        self._embeds: dict[int, int] = {}  # rows of the program that read a table, by its address
        self._rotary: list[tuple[Rotation, Buffer]] = []
        self._owned: dict[tuple[str, int], int] = {}  # addresses that `_own` gave
        self._pointers = self._keep(aligned_array((threads, 2 * tile_leaves.MOST), np.int64))

    def nbytes(self, blocks: int = 0, states: int = 0) -> int:
        """Bytes of activations, of so many blocks of the cache and so many states of texts."""
        cache = sum(cache.keys[:blocks].nbytes + cache.values[:blocks].nbytes for cache in self.caches)
        kept = sum(state.inputs[:states].nbytes + state.matrices[:states].nbytes for state in self.states)
        return self._buffers.nbytes + cache + kept

    @property
    def blocks(self) -> int:
        """Blocks of the cache that there are addresses for."""
        return min((len(cache.keys) for cache in self.caches), default=self._limits.blocks)

    def table(self) -> Table:
        """The Program as the pool runs it; the recorder has to live as long."""
        return table_of(self.program, self._leaves.cache)

    def layout(self) -> Table:
        """The Program that lays weights out as the kernels want them: to be run once, before all else."""
        tensors = self._strips.tensors.values()
        if not tensors:
            return table_of([], self._leaves.cache)
        size = self._strips.scratch_bytes()
        scratch = self._buffers.take(self._threads * size).address
        rows = [Row(interleave.interleave, packed(*self._strips.arguments(t, scratch, size))) for t in tensors]
        self._kept.append(rows)
        return table_of(rows, self._leaves.cache)

    # ------------------------------------------------------------ Ops

    def embed(self, table: Tensor, of: Of = "tokens") -> Value:
        out = self._value(table.shape[0])
        leaf = self._leaves.dequantize_row(table.quant.name)
        numbers: IntArray = getattr(self.step, of)
        self._embeds[table.address] = len(self.program)
        self._row(
            rows.embed,
            *(out.count, numbers.ctypes.data, table.address, table.row_bytes, table.row_blocks, leaf, out.address, out.width),
        )
        return out

    def linear(self, x: Value, *weights: tuple[Tensor, FloatArray | None]) -> list[Value]:
        outs = [self._like(x, tensor.rows) for tensor, _ in weights]
        step = self._piece(weights[0][0].row_bytes, sum(tensor.rows for tensor, _ in weights))
        divided = [self._strips.split(tensor) for tensor, _ in weights]
        pieces = sum(math.ceil(part.rows / step) for parts in divided for part in parts)
        fields: list[int] = []
        for (tensor, bias), out, parts in zip(weights, outs, divided, strict=True):
            fields += self._divided(parts, self._pack(x, tensor), out, bias)
        self._row(matmul.linear, x.count, pieces, step, self._pointers, sum(map(len, divided)), *fields, label=weights[0][0].name)
        return outs

    def by_head(self, x: Value, weight: Tensor) -> Value:
        n_in, n_out, heads = weight.shape
        form = self._leaves.activation(weight.quant.name)
        packed, out = self._packed(x, form), self._like(x, heads * n_out)
        step = self._piece(weight.row_bytes, heads * n_out)
        fields: list[int] = []
        for head in range(heads):
            matrix = weight.matrix(head)
            places = activation_bytes(form, head * n_in), activation_bytes(form, x.width), 4 * head * n_out
            fields += self._matrix(matrix, packed, out, places=places)
        pieces = heads * math.ceil(n_out / step)
        self._row(matmul.linear, x.count, pieces, step, self._pointers, heads, *fields, label=weight.name)
        return out

    def join(self, heads: int, *parts: Part) -> Value:
        out = self._like(parts[0].value, heads * sum(part.size for part in parts))
        fields = [field for p in parts for field in (p.value.address + 4 * p.first, 4 * p.value.width, p.size, 4 * p.stride)]
        self._row(reshape.join, out.count, out.address, heads, out.width // heads, len(parts), *fields)
        return out

    def rms_norm(self, x: Value, weight: FloatArray, eps: float) -> Value:
        out = self._like(x, x.width)
        self._row(rows.rms_norm, x.count, x.address, self._keep(weight), out.address, x.width, eps, 0, 0, 0)
        return out

    def layer_norm(self, x: Value, weight: FloatArray, bias: FloatArray, eps: float) -> Value:
        out = self._like(x, x.width)
        self._row(encode.layer_norm, x.count, x.address, self._keep(weight), self._keep(bias), out.address, x.width, eps)
        return out

    def attention(self, q: Value, k: Value, v: Value, how: Attending) -> Value:
        heads, rotation, norms, sinks = how.heads, how.rotation, how.norms, how.sinks
        if not heads.causal:
            raise ModelError("this model needs whole texts: it makes vectors of them, and no text of its own")
        cache, step = self._cache(how.layer, heads), self.step
        table = self._rotary_table(rotation) if rotation else None
        q_norm, k_norm, eps = (self._keep(norms[0]), self._keep(norms[1]), norms[2]) if norms else (0, 0, 0.0)
        where = (
            step.positions.ctypes.data,
            step.sequences.ctypes.data,
            step.tables.ctypes.data,
            step.tables.shape[1],
            cache.keys.ctypes.data,
            cache.values.ctypes.data,
        )
        shape = heads.head_count, heads.head_count_kv, heads.key_length, heads.value_length
        style = attention.INTERLEAVED if heads.rope_interleaved else attention.NEOX
        self._row(
            attention.rotate_store,
            *(q.count, q.address, k.address, v.address, q_norm, k_norm),
            *((table.address, len(rotation.frequencies)) if rotation and table else (0, 0)),
            *(style, *shape, *where, self._kept_as.bits, eps, heads.value_eps),
        )
        out = self._like(q, heads.head_count * heads.value_length)
        size = segments.scratch_bytes(heads.head_count // heads.head_count_kv, heads.key_length, heads.value_length)
        scratch = self._own("scratch of attention", self._threads * size)
        self._row(
            attention.attend,
            *(q.count, q.address, out.address, *shape, *where),
            *(self._sums_table("keys"), self._sums_table("values"), self._kept_as.bits, scratch, size),
            *(heads.window, self._keep(sinks) if sinks is not None else 0, heads.scale, heads.softcap),
            *(self._leaves.weigh(self._kept_as), *self._records(heads)),
        )
        return out

    def delta(
        self, layer: int, qkv: Value, z: Value, alpha: Value, beta: Value, shape: Recurrence, weights: DeltaWeights
    ) -> Value:
        if shape.size % delta_leaves.COLUMNS:
            raise ModelError(f"heads of {shape.size} cannot be run: they have to be a multiple of {delta_leaves.COLUMNS}")
        state, where = self._state(shape), (self.step.positions.ctypes.data, self.step.sequences.ctypes.data)
        mixed, taps = self._like(qkv, shape.channels), np.ascontiguousarray(weights.conv.T)
        step = max(64, shape.channels // (self._threads * PIECES) // 16 * 16)
        self._row(
            delta.convolve,
            *(qkv.count, qkv.address, mixed.address, shape.channels, shape.kernel, self._keep(taps)),
            *(*where, state.inputs.ctypes.data, step),
        )
        out, numbers = self._like(z, z.width), self._like(alpha, delta.NUMBERS * shape.value_heads)
        heads = shape.key_heads, shape.value_heads, shape.size, int(shape.grouped)
        self._row(
            delta.prepare,
            *(qkv.count, mixed.address, alpha.address, beta.address, numbers.address, *heads),
            *(self._keep(weights.decay), self._keep(weights.bias), shape.eps),
        )
        states = state.matrices.ctypes.data
        self._row(
            delta.learn,
            *(qkv.count, mixed.address, numbers.address, out.address, *heads, *where, states, self._leaves.learn()),
        )
        norm = self._keep(weights.norm)
        self._row(delta.finish, qkv.count, out.address, z.address, shape.value_heads, shape.size, norm, shape.eps)
        return out

    def gated(self, gate: Value, up: Value, activation: Activation) -> Value:
        self._row(rows.gated, gate.count, gate.address, up.address, gate.width, activations.CODES[activation], 0, 0, 0)
        return gate

    def gelu(self, x: Value) -> Value:
        self._row(encode.gelu, x.count, x.address, x.width)
        return x

    def experts(
        self, x: Value, logits: Value, experts: Experts, routing: Routing, beside: Callable[[], Value] | None = None
    ) -> Value:
        ids, weights = self.chosen(logits, routing)
        out = self._like(x, experts.down.rows)
        self.routed(x, ids, weights, experts, routing.expert_used_count, out)
        return out if beside is None else self.add(out, beside())

    def chosen(self, logits: Value, routing: Routing) -> tuple[Buffer, Buffer]:
        """The experts that a row chooses by its logits, a value each: ids (rows, k) i32 and weights (rows, k) f32."""
        k, bias = routing.expert_used_count, routing.bias
        ids, weights = self._buffers.take(4 * logits.limit * k), self._buffers.take(4 * logits.limit * k)
        self._row(
            router.choose,
            *(logits.count, logits.address, ids.address, weights.address, logits.width, k, int(routing.normalize)),
            *(routing.gating, self._keep(bias) if bias is not None else 0),
            *(routing.group_count, routing.group_used_count),
            *(self._keep(routing.expert_scale) if routing.expert_scale is not None else 0, routing.scale),
        )
        return ids, weights

    def routed(self, x: Value, ids: Buffer, weights: Buffer, experts: Experts, k: int, out: Value) -> None:
        """The sum of chosen experts: `ids` (rows, k) i32, -1 for none, and `weights` (rows, k) f32."""
        gate, up, down = experts.gate, experts.up, experts.down
        plan = self._buffers.take(4 * router.plan_size(gate.shape[2], x.limit * k))
        self._row(router.plan, x.count, ids.address, plan.address, gate.shape[2], k)
        hidden, other = self._pairs(x, k, gate.rows), self._pairs(x, k, up.rows)
        gate_bias, up_bias, down_bias = experts.biases or (None, None, None)
        first = (gate, self._pack(x, gate), hidden, gate_bias), (up, self._pack(x, up), other, up_bias)
        self._experts(plan, k, k, experts, *first)
        y = self._pairs(x, k, down.rows)
        self._experts(plan, k, 1, experts, (down, self._pack(hidden, down, k), y, down_bias))
        self._row(router.combine, x.count, y.address, ids.address, weights.address, out.address, out.width, k)

    def add(self, x: Value, y: Value) -> Value:
        out = self._like(x, x.width)
        self._row(rows.add, x.count, x.address, y.address, out.address, x.width)
        return out

    def scale(self, x: Value, factor: float) -> Value:
        self._row(reshape.scale, x.count, x.address, x.width, factor)
        return x

    def gate_rows(self, x: Value, logits: Value) -> Value:
        self._row(reshape.gate_rows, x.count, x.address, x.width, logits.address)
        return x

    def softcap(self, x: Value, cap: float) -> Value:
        self._row(reshape.softcap, x.count, x.address, x.width, cap)
        return x

    def outputs(self, x: Value) -> Value:
        count = self.step.counts.ctypes.data + 8
        out = Value(self._buffers.take(4 * self._limits.outputs * x.width), x.width, count, self._limits.outputs)
        self._row(rows.gather, count, self.step.outputs.ctypes.data, x.address, out.address, x.width)
        return out

    # ------------------------------------------------------------ parts

    def _row(self, kernel: Driver, *arguments: int | float, label: str = "", per_row: int = 1) -> None:
        """`per_row`: pieces of a row of activations, where the kernel's are such rows."""
        self.labels.append(label or kernel.name)
        self.program.append(Row(kernel, packed(*arguments), alone=kernel.by_row and per_row == 1))

    def _keep(self, array: npt.NDArray[np.generic]) -> int:
        """The array's address; it lives as long as the recorder."""
        self._kept.append(array)
        return array.ctypes.data

    def _own(self, purpose: str, nbytes: int) -> int:
        """Address of so many bytes that serve one purpose: a late thread may still write to its part (see `desk`)."""
        key = purpose, nbytes
        if key not in self._owned:
            self._owned[key] = self._keep(aligned_array((nbytes,), np.uint8))
        return self._owned[key]

    def _value(self, width: int) -> Value:
        limit = self._limits.rows
        return Value(self._buffers.take(4 * limit * width), width, self.step.counts.ctypes.data, limit)

    def _like(self, x: Value, width: int) -> Value:
        return Value(self._buffers.take(4 * x.limit * width), width, x.count, x.limit)

    def _pairs(self, x: Value, k: int, width: int) -> Value:
        """A Value with k rows for each row of x."""
        return Value(self._buffers.take(4 * x.limit * k * width), width, x.count, x.limit * k)

    def _piece(self, row_bytes: int, n_rows: int) -> int:
        """Rows of a piece, where `n_rows` are to be read in all: several pieces a thread, each long enough to stream."""
        rows = max(SMALLEST_PIECE, min(PIECE_BYTES // row_bytes, n_rows // (self._threads * PIECES)))
        return self._strips.step(rows)

    def _pack(self, x: Value, tensor: Tensor, per_count: int = 1) -> Buffer:
        """x in the activation format that the tensor's type multiplies; recorded once for each format."""
        if tensor.shape[0] != x.width:
            raise ModelError(f"tensor {tensor.name!r} takes rows of {tensor.shape[0]}, got {x.width}")
        return self._packed(x, self._leaves.activation(tensor.quant.name), per_count)

    def _packed(self, x: Value, form: str, per_count: int = 1) -> Buffer:
        if form == "f32":
            return x.buffer
        if form not in x.packed:
            stride = activation_bytes(form, x.width)
            out = x.packed[form] = self._buffers.take(x.limit * stride)
            leaf = self._leaves.quantize(form)
            if per_count > 1 or not self._packed_by_maker(x, leaf, out.address, stride):
                self._row(rows.pack, x.count, per_count, x.address, x.width, out.address, stride, leaf, per_row=per_count)
        return x.packed[form]

    def _packed_by_maker(self, x: Value, leaf: int, out: int, stride: int) -> bool:
        """Whether the last row of the Program makes x and can pack it as well: then it will, while x is in the core's cache. An
        earlier one must not: the memory of `out` may have been another value's since."""
        last = self.program[-1] if self.program else None
        if last is None or last.kernel not in PACKING:
            return False
        made, packing = PACKING[last.kernel]
        if last.arguments[made] != x.address or last.arguments[packing] != 0:
            return False
        last.arguments[packing : packing + 3] = leaf, out, stride
        return True

    def _matrix(
        self,
        tensor: Tensor,
        x: Buffer,
        out: Value,
        bias: FloatArray | None = None,
        places: tuple[int, int, int] | None = None,
    ) -> tuple[int, ...]:
        """The fields of matmul.MATRIX. `places`: where in rows of activations, of so many bytes, and in rows of the output."""
        first, stride, to = places or (0, activation_bytes(self._leaves.activation(tensor.quant.name), tensor.shape[0]), 0)
        form = "strip" if self._in_strips(tensor) else "dot"
        return (
            *(tensor.address, tensor.row_bytes, tensor.rows, x.address + first, stride, out.address + to, 4 * out.width),
            *(tensor.row_blocks, self._leaf_table(tensor.quant.name, form), self._keep(bias) if bias is not None else 0),
            *self._unpacking(tensor, form),
        )

    def _divided(self, parts: list[Tensor], x: Buffer, out: Value, bias: FloatArray | None) -> list[int]:
        """The fields of a matrix that is multiplied in parts."""
        fields, first = list[int](), 0
        stride = activation_bytes(self._leaves.activation(parts[0].quant.name), parts[0].shape[0])
        for part in parts:
            of_part = None if bias is None else bias[first : first + part.rows]
            fields += self._matrix(part, x, out, of_part, (0, stride, 4 * first))
            first += part.rows
        return fields

    def _unpacking(self, tensor: Tensor, form: str) -> tuple[int, ...]:
        """The fields of matmul.MATRIX that say how rows are unpacked for many columns."""
        unpacked, lanes = self._leaves.unpacked_form(tensor.quant.name, form), self._leaves.strip_rows
        if unpacked is None:
            return 0, 0, 0, 0, 0, 0, 0
        row_bytes = tensor.row_blocks * unpacked.block_bytes
        some = max(UNPACKED_BYTES // row_bytes // lanes, 1) * lanes
        place = self._own("unpacked rows", self._threads * max(UNPACKED_BYTES, some * row_bytes))
        table = self._leaf_table(unpacked.name, "strip")
        return self._leaves.unpack(tensor.quant.name), table, place, row_bytes, some, lanes, unpacked.pays_from

    def _in_strips(self, tensor: Tensor) -> bool:
        if not self._strips.take(tensor):
            return False
        reader = self._embeds.pop(tensor.address, None)
        if reader is not None:  # a table that is the output as well
            size = (tensor.row_bytes + 63) // 64 * 64
            scratch = self._buffers.take(self._threads * size).address
            more = self._strips.rows, self._leaves.row(tensor.quant.name), scratch, size, tensor.rows
            self.program[reader] = Row(interleave.embed, packed(*map(int, self.program[reader].arguments), *more), alone=True)
        return True

    def _experts(
        self, plan: Buffer, used: int, share: int, experts: Experts, *matrices: tuple[Tensor, Buffer, Value, FloatArray | None]
    ) -> None:
        n_rows, n_experts = matrices[0][0].rows, experts.gate.shape[2]
        most, least = min(n_rows, self._piece(matrices[0][0].row_bytes, n_rows * used)), self._strips.step(SMALLEST_PIECE)
        fields = [field for matrix in matrices for field in self._matrix(*matrix)]
        sizes = [tensor.matrix_bytes for tensor, *_ in matrices]
        activation = activations.CODES[experts.activation]
        head = plan.address, n_experts, share, most, least, self._pointers, len(matrices), activation
        self._row(matmul.experts, *head, *fields, *sizes, label=matrices[0][0].name)

    def _leaf_table(self, quant: str, form: str = "dot") -> int:
        """Address of the table that the drivers look leaves up in: see matmul.MATRIX. `form`: "dot" or "strip"."""
        name = f"{form}.{quant}"
        if name not in self._tables:
            table: npt.NDArray[np.int64] = aligned_array((tile_leaves.MOST + 1,), np.int64)
            leaf = self._leaves.strip if form == "strip" else self._leaves.dot
            for columns in self._leaves.columns(quant, form):
                table[columns] = leaf(quant, columns)
            for columns, more in self._leaves.filled(quant, form).items():
                table[columns] = table[more]
            table[0] = self._leaves.columns(quant, form)[-1]
            self._tables[name] = self._keep(table)
        return self._tables[name]

    def _sums_table(self, form: str) -> int:
        """The same of the leaves that attention takes for "keys" or "values"."""
        if form not in self._tables:
            table: npt.NDArray[np.int64] = aligned_array((matmul.WIDEST + 1,), np.int64)
            for columns in COLUMNS:
                table[columns] = self._leaves.sums(form, self._kept_as, columns)
            table[0] = COLUMNS[-1]
            self._tables[form] = self._keep(table)
        return self._tables[form]

    def _records(self, heads: Heads) -> tuple[int, int, int]:
        """For attention whose segments are pieces of their own: where records lie, for how many there is room, and where pieces
        are counted. There is room for one text as long as can be; pages that no text needs are not touched."""
        count = math.ceil(self._limits.table * BLOCK_TOKENS / segments.SEGMENT) * heads.head_count
        records = self._own("records of attention", 4 * count * (segments.HEAD + heads.value_length))
        done = self._keep(aligned_array((attention.SPLIT_ROWS * heads.head_count_kv,), np.int64))
        return records, count, done

    def _rotary_table(self, rotation: Rotation) -> Buffer:
        for known, table in self._rotary:
            if known is rotation:
                return table
        half = len(rotation.frequencies)
        table = self._buffers.take(8 * self._limits.rows * half)
        self._row(
            attention.rotary_table,
            *(self.step.counts.ctypes.data, self.step.positions.ctypes.data),
            *(self._keep(rotation.frequencies), table.address, half, rotation.magnitude),
        )
        self._rotary.append((rotation, table))
        return table

    def _cache(self, layer: int, heads: Heads) -> Cache:
        assert layer >= len(self.caches), "layers are recorded in order"
        kind, blocks = self._kept_as, (self._limits.blocks, self._limits.least)
        keys = reserved_array(blocks, (heads.head_count_kv, kind.head_bytes(heads.key_length)), np.uint8)
        values = reserved_array(blocks, (heads.head_count_kv, kind.head_bytes(heads.value_length)), np.uint8)
        self.caches.append(Cache(keys, values))
        return self.caches[-1]

    def _state(self, shape: Recurrence) -> State:
        lines = self._limits.lines, self._limits.lines
        inputs = reserved_array(lines, (shape.kernel - 1, shape.channels), np.float32)
        parts = shape.size // delta_leaves.COLUMNS
        matrices = reserved_array(lines, (shape.value_heads, parts, shape.size, delta_leaves.COLUMNS), np.float32)
        self.states.append(State(inputs, matrices))
        return self.states[-1]
