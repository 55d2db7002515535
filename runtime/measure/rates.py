"""How fast the kernels are: for each type of weights the seconds of a byte and of an operation, and what a step costs besides.

Everything is measured through the recorder and the drivers that a model runs on, so the figures hold for models.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from runtime.execute.recorder import Recorder
from runtime.kernels import rows as row_kernels
from runtime.layers.ops import Heads, Rotation
from runtime.measure.stage import BLOCKS, Record, Stage
from runtime.quants import BY_NAME
from runtime.weights import Tensor

WIDTH = 2048  # values of a weight row
CACHED = 192 << 10  # bytes of weights a thread that stay in its core's cache
PROMPT = 256  # rows of a prompt
CONTEXT = 1024  # tokens that attention looks at; they fit the stage's blocks
HEADS = Heads(16, 4, 128, 128, False, 0.1)
IDLE_ROWS = 200
ROWS = 64  # that the rows of a matrix are a multiple of, as in models


@dataclasses.dataclass(frozen=True, slots=True)
class TypeRate:
    """One type of weights, all threads together."""

    memory: float  # seconds a byte, one activation row, weights from memory
    cache: float  # the same, weights in the cores' caches
    prompt: float  # seconds an operation (2 for each weight and activation row), many rows


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """What a step is made of, in seconds, for so many threads."""

    threads: int
    types: dict[str, TypeRate]
    row: float  # a row of a Program that has nothing to do: the call and the barrier
    attention: float  # a (query head, position, value of key and value) of a long context, one row
    attention_prompt: float  # the same, in a prompt
    element: float  # an element of a norm and a sum


def rates(stage: Stage, memory: npt.NDArray[np.uint8], types: list[str], seconds: float) -> Rates:
    """All of it, of types that the CPU multiplies; `seconds` for each single measurement."""
    row = _row(stage)
    return Rates(
        threads=stage.threads,
        types={name: _type(stage, memory, name, row, seconds) for name in types},
        row=row,
        attention=_attention(stage, 1, seconds),
        attention_prompt=_attention(stage, PROMPT, seconds),
        element=_elements(stage, seconds),
    )


def _row(stage: Stage) -> float:
    """Rows that find no work: what is left is the call and the barrier."""

    def record(recorder: Recorder) -> None:
        value = recorder._value(64)
        for _ in range(IDLE_ROWS):
            recorder._row(row_kernels.add, value.count, value.address, value.address, value.address, 64)

    def empty(recorder: Recorder) -> None:
        recorder.step.counts[:] = 0

    return stage.run(record, 1, 0.02, empty).fastest / IDLE_ROWS


def _type(stage: Stage, memory: npt.NDArray[np.uint8], name: str, row: float, seconds: float) -> TypeRate:
    kind = BY_NAME[name]
    row_bytes = WIDTH // kind.block_size * kind.block_bytes
    large = _matrices(memory, name, memory.nbytes // row_bytes, 4096)
    small = _matrices(memory, name, max(stage.threads, CACHED // row_bytes * stage.threads), 1 << 20)
    square = _matrices(memory, name, 2048, 2048)
    far = stage.run(_products(large), 1, seconds).usual - 2 * row * len(large)
    near = stage.run(_products(small * 50), 1, seconds).fastest - 2 * row * 50
    prompt = stage.run(_products(square), PROMPT, seconds).usual - 2 * row
    return TypeRate(
        memory=far / sum(tensor.nbytes for tensor in large),
        cache=near / (50 * small[0].nbytes),
        prompt=prompt / (2 * PROMPT * WIDTH * square[0].rows),
    )


def _matrices(memory: npt.NDArray[np.uint8], name: str, rows: int, most: int) -> list[Tensor]:
    """Matrices of at most `most` rows that lie one after the other in memory, `rows` in all."""
    kind = BY_NAME[name]
    row_bytes = WIDTH // kind.block_size * kind.block_bytes
    rows = max(ROWS, min(rows, memory.nbytes // row_bytes) // ROWS * ROWS)
    return [
        Tensor(name, (WIDTH, count), kind, memory.ctypes.data + first * row_bytes, count * row_bytes)
        for first in range(0, rows, most)
        if (count := min(most, rows - first))
    ]


def _products(matrices: list[Tensor]) -> Record:
    def record(recorder: Recorder) -> None:
        for tensor in matrices:
            recorder.linear(recorder._value(WIDTH), (tensor, None))

    return record


def _attention(stage: Stage, rows: int, seconds: float) -> float:
    """Attention of `rows` tokens of one text: the last of CONTEXT tokens, or a prompt from its start."""
    first = CONTEXT - 1 if rows == 1 else 0

    def record(recorder: Recorder) -> None:
        q, k, v = (recorder._value(heads * HEADS.key_length) for heads in (HEADS.head_count, *[HEADS.head_count_kv] * 2))
        recorder.attention(0, q, k, v, HEADS, Rotation(np.ones(64), 1.0), None)

    def text(recorder: Recorder) -> None:
        recorder.step.positions[:] = np.arange(first, first + rows)
        recorder.step.tables[0, :] = np.arange(BLOCKS)

    positions = sum(range(first + 1, first + rows + 1))
    seen = HEADS.head_count * positions * (HEADS.key_length + HEADS.value_length)
    return stage.run(record, rows, seconds, text).usual / seen


def _elements(stage: Stage, seconds: float) -> float:
    def record(recorder: Recorder) -> None:
        x, weight = recorder._value(WIDTH), np.ones(WIDTH, np.float32)
        recorder.add(recorder.rms_norm(x, weight, 1e-6), x)

    return stage.run(record, PROMPT, seconds).usual / (PROMPT * WIDTH)
