"""Gated DeltaNet on the card: each text's state in VRAM, by its line."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch

from runtime.core import ModelError
from runtime.cuda.blocks import BlockMemory
from runtime.cuda.module import Module
from runtime.execute.cuda_core import CudaCore
from runtime.execute.cuda_structs import DeltaShape
from runtime.execute.cuda_values import Value
from runtime.execute.device_step import DeviceStep
from runtime.kernels.leaves import Leaves
from runtime.layers.ops import DeltaWeights, Recurrence
from runtime.quants import QuantType

SIZES = (32, 64, 128)  # of heads, and
MOST_TAPS = 4  # tokens of the convolution, that delta.cu can hold in registers


class CudaDelta(CudaCore):
    """The operation `delta`. `lines`: texts that there are states for; to be set before the first step."""

    def __init__(self, module: Module, step: DeviceStep, blocks: BlockMemory, leaves: Leaves, kinds: Iterable[QuantType]) -> None:
        super().__init__(module, step, blocks, leaves, kinds)
        self.lines = 0
        self.states: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """By layer: the convolution's last inputs (lines, kernel - 1, channels), matrices (lines, value heads, size, size)."""
        self._taps: dict[int, torch.Tensor] = {}  # by layer: the convolution's weights (kernel, channels)

    def delta(
        self, layer: int, qkv: Value, z: Value, alpha: Value, beta: Value, shape: Recurrence, weights: DeltaWeights
    ) -> Value:
        if shape.size not in SIZES or shape.kernel > MOST_TAPS:
            raise ModelError(f"heads of {shape.size} and a convolution of {shape.kernel} cannot be run on the GPU")
        inputs, matrices = self._state(layer, shape)
        step, mixed, out = self._step, self._like(qkv, qkv.width), self._like(z, z.width)
        places = step.positions, step.lines, qkv.count
        if layer not in self._taps:
            self._taps[layer] = torch.from_numpy(np.ascontiguousarray(weights.conv.T)).to(self.device)
        self._launch(
            "delta_convolve", (math.ceil(shape.channels / 256),), 256,
            *(qkv.data, mixed.data, shape.channels, shape.kernel, self._taps[layer], inputs, *places),
        )  # fmt: skip
        vectors = (self._vector(vector) for vector in (weights.decay, weights.bias, weights.norm))
        own = DeltaShape(shape.key_heads, shape.value_heads, shape.grouped, shape.eps)
        self._launch(
            f"delta_rule_{shape.size}", (shape.value_heads,), shape.size,
            *(mixed.data, z.data, alpha.data, beta.data, out.data, own, *vectors, matrices, *places),
        )  # fmt: skip
        return out

    def copy_states(self, pairs: list[tuple[int, int]]) -> None:
        """Copy states of texts, (from, to), on every layer here."""
        for arrays in self.states.values():
            for source, target in pairs:
                for array in arrays:
                    array[target].copy_(array[source])

    def _state(self, layer: int, shape: Recurrence) -> tuple[torch.Tensor, torch.Tensor]:
        if layer not in self.states:
            inputs = torch.zeros((self.lines, shape.kernel - 1, shape.channels), device=self.device)
            matrices = torch.zeros((self.lines, shape.value_heads, shape.size, shape.size), device=self.device)
            self.states[layer] = inputs, matrices
        return self.states[layer]
