"""Weights on the card, rows of activations, and the launch of kernels: what all operations there are made of."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt
import torch

from runtime.core import Batch, ModelError
from runtime.cuda.blocks import BlockMemory
from runtime.cuda.module import Module
from runtime.execute.cuda_structs import Groups, Matrix, Packing, Rows
from runtime.execute.cuda_values import FLOATS, Value, Weight, dequantize, format_of, memory
from runtime.execute.device_step import DeviceStep
from runtime.kernels.leaves import Leaves
from runtime.quants import TYPES, QuantType
from runtime.weights import Tensor

FEW = 16  # rows that are multiplied one by one, from registers, and whose experts run pair by pair; more: on tensor cores
COLUMNS = 8  # rows of x that a block of matvec.cu takes, at the most
TILE_ROWS, TILE_COLUMNS = 128, 64  # BM, BN of matmul.cu
MOST_MATRICES = 4  # of one launch of matvec.cu
CHUNK, CHUNK_BYTES = 256, 320  # values and bytes of a row in int8, of packed.cu
STEP_INTS, STEP_FLOATS = 1024, 256  # values that a warp of matvec.cu takes at a time
WARPS_WANTED = 2048  # of a product: fewer leave an H100's memory waiting


class CudaCore:
    """The card, the step under way, and all weights. `begin` comes before each forward pass."""

    def __init__(self, module: Module, step: DeviceStep, blocks: BlockMemory, leaves: Leaves, kinds: Iterable[QuantType]) -> None:
        """`kinds`: the types of the model's matrices."""
        self.device = module.device
        self._module = module
        self._step = step
        self._blocks = blocks
        self._leaves = leaves
        self._formats = sorted({format_of(kind) for kind in kinds} - {FLOATS})
        self._weights: dict[str, Weight] = {}
        self._vectors: dict[int, tuple[Any, torch.Tensor]] = {}  # by id; the array is kept so that the id stays its own
        self._rows = self._outputs = 1
        self._pending: tuple[Value, Value, Value] | None = None  # x, y and their sum, which most often is normed at once

    def begin(self, rows: int, outputs: int, batch: Batch | None) -> None:
        """A step with buffers for `rows` and `outputs`. With its batch, long runs of one text attend together; without (in a
        graph), every row attends alone."""
        self._rows, self._outputs, self._pending = rows, outputs, None

    @property
    def rows(self) -> int:
        """Rows that this step has buffers for."""
        return self._rows

    def given(self, data: torch.Tensor) -> Value:
        """Rows that somebody else has computed for this step."""
        return Value(data, self._step.rows_count)

    def add(self, x: Value, y: Value) -> Value:
        self._settle()
        out = self._like(x, x.width)
        self._pending = x, y, out
        return out

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
        self._launch(f"matvec_{columns}", grid, 256, every, len(matrices), self._in_ints(x), shift, x.count)

    def _matmul(self, x: Value, matrix: Matrix, experts: torch.Tensor | None, groups: Groups, share: int, columns: int) -> None:
        """Many rows of x, on tensor cores; `columns` tiles of them, at the most. `share`: see below."""
        grid = math.ceil(matrix.rows / TILE_ROWS), columns
        if TYPES[matrix.type].cuda_ints:
            self._launch("matmul_ints", grid, 256, matrix, experts, groups, self._in_ints(x, share), x.count)
        else:
            self._launch("matmul", grid, 256, matrix, experts, groups, *self._halves(x, share), x.width, x.count)

    def _halves(self, x: Value, share: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """x in f16 and its scales; made once. `share`: rows of x for each one that is counted."""
        if x.halves is None:
            halves = torch.empty((x.rows, x.width), dtype=torch.float16, device=self.device)
            scales = torch.empty(x.rows, device=self.device)
            self._launch("pack", (x.rows,), 256, x.data, halves, scales, x.width, x.count, share)
            x.halves = halves, scales
        return x.halves

    def _in_ints(self, x: Value, share: int = 1) -> Rows:
        """x in int8, packed where that is not done; `share` as above."""
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

    def _vector(self, array: npt.NDArray[Any]) -> torch.Tensor:
        if id(array) not in self._vectors:
            self._vectors[id(array)] = array, torch.from_numpy(array).to(self.device)
        return self._vectors[id(array)][1]

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
