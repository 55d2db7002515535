"""What a step of the CPU works on: its buffers, rows of activations, and what layers keep of texts."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import numpy.typing as npt

from runtime.core import FloatArray, IntArray
from runtime.execute.buffers import Buffer
from runtime.weights import aligned_array


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How large a step can be."""

    rows: int
    outputs: int
    blocks: int  # that there are addresses for; memory is taken where it is written
    least: int  # blocks that there have to be addresses for
    table: int  # blocks a sequence can have
    lines: int = 0  # states of texts that recurrent layers keep


class Step:
    """The buffers that change with every step; the kernels read them by address."""

    def __init__(self, limits: Limits) -> None:
        self.counts: npt.NDArray[np.int64] = aligned_array((2,), np.int64)  # rows, outputs
        self.tokens: IntArray = aligned_array((limits.rows,), np.int32)
        self.positions: IntArray = aligned_array((limits.rows,), np.int32)
        self.types: IntArray = aligned_array((limits.rows,), np.int32)  # of tokens; all 0
        self.sequences: IntArray = aligned_array((limits.rows,), np.int32)
        self.tables: IntArray = aligned_array((limits.rows, limits.table), np.int32)
        self.outputs: IntArray = aligned_array((limits.outputs,), np.int32)


@dataclasses.dataclass(eq=False, slots=True)
class Value:
    """Rows of float32 in a buffer, (`count` rows, width). The buffer is free again when the last Value of it is gone."""

    buffer: Buffer
    width: int
    count: int  # address of the row count
    limit: int  # rows there can be
    packed: dict[str, Buffer] = dataclasses.field(default_factory=dict)  # by activation format

    @property
    def address(self) -> int:
        return self.buffer.address


@dataclasses.dataclass(frozen=True, slots=True)
class Cache:
    """One layer's keys and values, (blocks, kv heads, bytes of a head): see runtime.kernels.kept."""

    keys: npt.NDArray[np.uint8]
    values: npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """What one recurrent layer keeps of texts, by line: see runtime.kernels.delta."""

    inputs: FloatArray  # (lines, kernel - 1, channels)
    matrices: FloatArray  # (lines, value heads, parts, size, COLUMNS)

    def copy(self, source: int, target: int) -> None:
        """Of one line to another."""
        self.inputs[target] = self.inputs[source]
        self.matrices[target] = self.matrices[source]


def view(value: Value, rows: int) -> FloatArray:
    """The first rows of a Value as an array on its memory, (rows, width)."""
    memory = (ctypes.c_float * (rows * value.width)).from_address(value.address)
    return np.ctypeslib.as_array(memory).reshape(rows, value.width)
