"""A Mixture of Experts on the card: choose, hand over what is not there, compute what is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

import torch

from runtime.core import ModelError
from runtime.cuda.blocks import BlockMemory
from runtime.cuda.module import Module
from runtime.execute.cuda_core import FEW, TILE_COLUMNS, CudaCore
from runtime.execute.cuda_structs import Groups, Matrix, Router
from runtime.execute.cuda_values import Value
from runtime.execute.device_step import DeviceStep
from runtime.execute.experts import KINDS, LOOKED_UP, STREAMED, Layer, Residence, stack
from runtime.execute.mailbox import Mailbox
from runtime.execute.streaming import Streamer
from runtime.kernels.activations import CODES
from runtime.kernels.leaves import Leaves
from runtime.layers.ops import Experts, Routing
from runtime.quants import QuantType

PCIE_ROWS = 2  # rows of a step that may read experts over PCIe: more would read the same one several times
DOWN_ROWS = 4  # rows of w of a block of experts.cu
MOST_EXPERTS = 1024  # of experts.cu
WARP = 32  # of its groups, and of the experts of a token, at the most


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """What a router chose, (rows, k) each, and the addresses of a layer's experts, (3, experts)."""

    ids: torch.Tensor
    weights: torch.Tensor
    where: torch.Tensor  # `Where` of runtime/cuda/source/experts.cu
    k: int
    table: torch.Tensor


class CudaExperts(CudaCore):
    """The operation `experts`, with those that lie on the card or pass through it, and the CPU's by the mailbox."""

    def __init__(self, module: Module, step: DeviceStep, blocks: BlockMemory, leaves: Leaves, kinds: Iterable[QuantType]) -> None:
        super().__init__(module, step, blocks, leaves, kinds)
        self.residences: dict[str, Residence] = {}  # by the gate's name
        self.mailbox: Mailbox | None = None
        self.over_pcie = 0.0  # of the experts that are not in VRAM, the part that the GPU reads from the host's memory
        self.table_of: Callable[[Residence], torch.Tensor | None] = lambda residence: None  # of streamed experts
        self.after: Callable[[Residence], None] = lambda residence: None
        self._sent = torch.zeros(1, dtype=torch.int32, device=self.device)

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

    def stream_by(self, streamer: Streamer) -> None:
        """Let prompts bring experts to the card by this one."""
        self.table_of, self.after = streamer.table_of, streamer.after

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
        self._launch("expert_hidden", grid, 256, gate, up, self._in_ints(x), *pairs, hidden.data, activation, x.count)
        out = self._like(x, down.rows)
        chosen = choice.ids, choice.where, choice.weights, choice.k
        grid = math.ceil(down.rows / DOWN_ROWS), x.rows
        self._launch("expert_down", grid, 256, down, self._in_ints(hidden, choice.k), *chosen, out.data, x.count)
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
            self._matmul(of, matrix, choice.table[kind], groups, 1 if share == k else k, most_tiles)
            return out

        hidden, up = product(0, x, k), product(1, x, k)
        self._elementwise("gated", hidden, up, hidden, k * hidden.width, CODES[layer.matrices.activation])
        y = product(2, hidden, 1)
        out = self._like(x, y.width)
        self._launch("combine", (x.rows,), 256, y.data, choice.where, choice.weights, k, out.data, out.width, x.count)
        return out

    def _bias(self, layer: Layer, kind: int) -> int | None:
        """Address of the biases of all experts of a layer, where they have some."""
        biases = layer.matrices.biases
        return None if biases is None else self._vector(biases[kind]).data_ptr()


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
