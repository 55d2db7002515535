"""How fast weights are multiplied: for each type the seconds of a byte and of an operation, by where the weights lie.

Measured through the recorder and the drivers that a model runs on, so the figures hold for models.
"""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import numpy.typing as npt

from runtime.execute.recorder import Recorder
from runtime.execute.step import Value, view
from runtime.measure.stage import Record, Stage
from runtime.quants import BY_NAME
from runtime.weights import Tensor

WIDTH = 2048  # values of a weight row
NARROW = 256  # the row that shows what a row costs beside its bytes
SHORT = 512  # values of a weight row whose activations take little room in the first cache
WIDE = 8  # columns of the widest leaf
ROWS = 64  # that the rows of a matrix are a multiple of, as in models
CACHED = 192 << 10  # bytes of weights a thread that stay in its core's cache
TURNS = 50  # that they are multiplied in a run
LARGE = 4096  # rows of a matrix in memory
EXPERT = 384 << 10  # bytes, about, of an expert's matrix
CHOSEN = 8  # experts of a layer, whose matrices threads share as one piece of work
PROMPT = 512  # rows of a prompt: a step of the default batch
MATRIX = 1024  # rows a thread of the matrix that a prompt meets, up to 8 of them

Memory = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True)
class TypeRate:
    """One type of weights, all threads together."""

    memory: float  # seconds a byte, one activation row, weights from memory
    memory_four: float  # the same, four activation rows
    memory_eight: float  # the same, eight, whose activations take much of the first cache
    memory_eight_short: float  # eight that take little of it, by rows of SHORT values
    scattered: float  # one row again, matrices of an expert's size here and there in memory
    cache: float  # the same, weights in the cores' caches
    cache_two: float  # two, four, eight and sixteen rows there
    cache_four: float
    cache_eight: float
    cache_sixteen: float
    last_cache: float  # one row, weights in the last cache, which the cores share
    prompt: float  # seconds an operation (2 for each weight and activation row), many rows


def type_rate(stage: Stage, memory: Memory, name: str, cache_bytes: int, row: float, seconds: float) -> TypeRate:
    """Of weights of that type; `row`: what a row of a Program costs by itself; `seconds` for each measurement."""
    bench = _Bench(stage, row, seconds)
    bytes_a_row = _row_bytes(name, WIDTH)
    large = matrices(memory, name, memory.nbytes // bytes_a_row, LARGE)
    experts = _mixed(matrices(memory, name, memory.nbytes // bytes_a_row, max(ROWS, EXPERT // bytes_a_row // ROWS * ROWS)))
    short = matrices(memory, name, memory.nbytes // _row_bytes(name, SHORT), LARGE, SHORT)
    middle, width = _in_last_cache(stage, memory, name, cache_bytes)
    small = matrices(memory, name, max(stage.threads, CACHED // bytes_a_row * stage.threads), 1 << 20) * TURNS
    rows = MATRIX * min(8, stage.threads)
    square = matrices(memory, name, 2 * rows, rows)  # which share what packing the rows takes
    return TypeRate(
        memory=bench.usual(large),
        memory_four=bench.usual(large, 4),
        memory_eight=bench.usual(large, WIDE),
        memory_eight_short=bench.usual(short, WIDE, SHORT),
        scattered=bench.usual(experts, together=CHOSEN),
        cache=bench.fastest(small),
        cache_two=bench.fastest(small, 2),
        cache_four=bench.fastest(small, 4),
        cache_eight=bench.fastest(small, WIDE),
        cache_sixteen=bench.fastest(small, 2 * WIDE),
        last_cache=bench.usual(middle, width=width),
        prompt=bench.usual(square, PROMPT) * bytes_a_row / (2 * PROMPT * WIDTH),
    )


def outputs(stage: Stage, memory: Memory, name: str, prompt: float, row: float, seconds: float) -> tuple[float, float]:
    """In a prompt, seconds of a sum of a weight row and an activation row: beside its operations, and at the least. By rows of
    one block, the former without what their operations cost in long rows (`prompt`, seconds each)."""
    narrow = matrices(memory, name, 4 * MATRIX, MATRIX, NARROW)
    taken = net(stage.run(products(narrow, NARROW), PROMPT, seconds).usual, row * len(narrow))
    least = taken / (PROMPT * sum(tensor.rows for tensor in narrow))
    return max(0.0, least - 2 * NARROW * prompt), least


class _Bench:
    """Seconds a byte of matrices that are multiplied one after the other."""

    def __init__(self, stage: Stage, row: float, seconds: float) -> None:
        self._stage, self._row, self._seconds = stage, row, seconds

    def usual(self, tensors: list[Tensor], rows: int = 1, width: int = WIDTH, together: int = 1) -> float:
        """As it mostly is."""
        return self._byte(tensors, self._stage.run(products(tensors, width, together), rows, self._seconds).usual, together)

    def fastest(self, tensors: list[Tensor], rows: int = 1) -> float:
        """At the best."""
        return self._byte(tensors, self._stage.run(products(tensors), rows, self._seconds).fastest)

    def _byte(self, tensors: list[Tensor], taken: float, together: int = 1) -> float:
        return net(taken, self._row * math.ceil(len(tensors) / together)) / sum(tensor.nbytes for tensor in tensors)


def _in_last_cache(stage: Stage, memory: Memory, name: str, cache_bytes: int) -> tuple[list[Tensor], int]:
    """Matrices that fill half of the last cache, and their width. One thread is what small models get, whose matrices are small,
    and a token finds those of its experts here and there; several threads read what a large model uses for every token."""
    width, most = (NARROW, 256) if stage.threads == 1 else (WIDTH, 1 << 16)
    return _mixed(matrices(memory, name, cache_bytes // 2 // _row_bytes(name, width), most, width)), width


def net(taken: float, overhead: float) -> float:
    """Seconds without a small part that was measured by itself, on a machine where anything may be disturbed."""
    return max(taken - overhead, taken / 4)


def matrices(memory: Memory, name: str, rows: int, most: int, width: int = WIDTH) -> list[Tensor]:
    """Matrices of at most `most` rows that lie one after the other in memory, `rows` in all."""
    row_bytes = _row_bytes(name, width)
    rows = max(ROWS, min(rows, memory.nbytes // row_bytes) // ROWS * ROWS)
    return [
        Tensor(name, (width, count), BY_NAME[name], memory.ctypes.data + first * row_bytes, count * row_bytes)
        for first in range(0, rows, most)
        if (count := min(most, rows - first))
    ]


def _row_bytes(name: str, width: int) -> int:
    return width // BY_NAME[name].block_size * BY_NAME[name].block_bytes


def _mixed(tensors: list[Tensor]) -> list[Tensor]:
    """In another order, the same every time."""
    random.Random(0).shuffle(tensors)
    return tensors


def products(tensors: list[Tensor], width: int = WIDTH, together: int = 1) -> Record:
    """The recording of these products of the same rows; of so many matrices at a time."""

    def record(recorder: Recorder) -> None:
        x = activations(recorder, width)
        for first in range(0, len(tensors), together):
            recorder.linear(x, *((tensor, None) for tensor in tensors[first : first + together]))

    return record


def activations(recorder: Recorder, width: int) -> Value:
    """Rows of random values. Pages that nobody has written to are one and the same, and reading them is no measure."""
    value = recorder._value(width)
    view(value, value.limit)[:] = np.random.default_rng(0).standard_normal(width, np.float32)
    return value
