"""How fast the kernels are: for each type of weights the seconds of a byte and of an operation, and what a step costs besides.

Everything is measured through the recorder and the drivers that a model runs on, so the figures hold for models.
"""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import numpy.typing as npt

from runtime.core import BLOCK_TOKENS
from runtime.execute.recorder import Recorder
from runtime.layers.ops import Attending, Heads, Rotation, Routing
from runtime.measure.stage import BLOCKS, Record, Stage
from runtime.quants import BY_NAME
from runtime.weights import Tensor

WIDTH = 2048  # values of a weight row
CACHED = 192 << 10  # bytes of weights a thread that stay in its core's cache
PROMPT = 512  # rows of a prompt: a step of the default batch
MATRIX = 1024  # rows a thread of the matrix that a prompt meets, up to 8 of them
CONTEXT = 1024  # tokens that attention looks at; they fit the stage's blocks
HEADS = Heads(16, 4, 128, 128, False, 0.1)
IDLE_ROWS = 200
USUAL, NARROW = "Q4_K", 256  # the type and the row that show what a row costs beside its bytes
ROWS = 64  # that the rows of a matrix are a multiple of, as in models


@dataclasses.dataclass(frozen=True, slots=True)
class TypeRate:
    """One type of weights, all threads together."""

    memory: float  # seconds a byte, one activation row, weights from memory
    cache: float  # the same, weights in the cores' caches
    last_cache: float  # the same, weights in the last cache, which the cores share
    prompt: float  # seconds an operation (2 for each weight and activation row), many rows


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """What a step is made of, in seconds, for so many threads."""

    threads: int
    types: dict[str, TypeRate]
    row: float  # a row of a Program that has nothing to do: the call and the barrier
    router: float  # a (token, expert, choice) of choosing experts
    output_prompt: float  # in a prompt, a sum of a weight row and an activation row, beside its operations: short rows cost more
    head: float  # a query head's attention, beside its context
    attention: float  # a (query head, position, value of key and value) of a long context, one row
    attention_prompt: float  # the same, in a prompt
    turn: float  # in a prompt, a head of queries, keys or values that is turned or stored
    element: float  # in a prompt, an element of a norm and a sum; a single token's are one thread's work


def rates(stage: Stage, memory: npt.NDArray[np.uint8], types: list[str], cache_bytes: int, seconds: float) -> Rates:
    """All of it, of types that the CPU multiplies; `seconds` for each single measurement. `cache_bytes`: of the last cache."""
    row = _row(stage)
    found = {name: _type(stage, memory, name, cache_bytes, row, seconds) for name in types}
    head, attention = _attention_of_one(stage, row, seconds)
    turn, attention_prompt = _attention_of_prompt(stage, seconds)
    return Rates(
        threads=stage.threads,
        types=found,
        row=row,
        router=_router(stage, row, seconds),
        output_prompt=_output(stage, memory, found, row, seconds),
        head=head,
        attention=attention,
        attention_prompt=attention_prompt,
        turn=turn,
        element=_elements(stage, seconds),
    )


def _row(stage: Stage) -> float:
    """Rows that find no work: what is left is the call and the barrier."""

    def record(recorder: Recorder) -> None:
        value = recorder._value(64)
        for _ in range(IDLE_ROWS):
            recorder.add(value, value)

    def empty(recorder: Recorder) -> None:
        recorder.step.counts[:] = 0

    return stage.run(record, 1, 0.02, empty).fastest / IDLE_ROWS


def _type(stage: Stage, memory: npt.NDArray[np.uint8], name: str, cache_bytes: int, row: float, seconds: float) -> TypeRate:
    kind = BY_NAME[name]
    row_bytes = WIDTH // kind.block_size * kind.block_bytes
    large = _matrices(memory, name, memory.nbytes // row_bytes, 4096)
    middle, width = _in_last_cache(stage, memory, name, cache_bytes)
    small = _matrices(memory, name, max(stage.threads, CACHED // row_bytes * stage.threads), 1 << 20)
    square = _matrices(memory, name, MATRIX * min(8, stage.threads), MATRIX * 8)
    far = _net(stage.run(_products(large), 1, seconds).usual, 2 * row * len(large))
    near = _net(stage.run(_products(small * 50), 1, seconds).fastest, 2 * row * 50)
    shared = _net(stage.run(_products(middle, width), 1, seconds).usual, 2 * row * len(middle))
    prompt = _net(stage.run(_products(square), PROMPT, seconds).usual, 2 * row)
    return TypeRate(
        memory=far / sum(tensor.nbytes for tensor in large),
        cache=near / (50 * small[0].nbytes),
        last_cache=shared / sum(tensor.nbytes for tensor in middle),
        prompt=prompt / (2 * PROMPT * WIDTH * square[0].rows),
    )


def _in_last_cache(stage: Stage, memory: npt.NDArray[np.uint8], name: str, cache_bytes: int) -> tuple[list[Tensor], int]:
    """Matrices that fill half of the last cache, and their width. One thread is what small models get, whose matrices are small,
    and a token finds those of its experts here and there; several threads read what a large model uses for every token."""
    kind = BY_NAME[name]
    width, most = (NARROW, 256) if stage.threads == 1 else (WIDTH, 1 << 16)
    matrices = _matrices(memory, name, cache_bytes // 2 * kind.block_size // (width * kind.block_bytes), most, width)
    random.Random(0).shuffle(matrices)
    return matrices, width


def _net(taken: float, overhead: float) -> float:
    """Seconds without a small part that was measured by itself, on a machine where anything may be disturbed."""
    return max(taken - overhead, taken / 4)


def _matrices(memory: npt.NDArray[np.uint8], name: str, rows: int, most: int, width: int = WIDTH) -> list[Tensor]:
    """Matrices of at most `most` rows that lie one after the other in memory, `rows` in all."""
    kind = BY_NAME[name]
    row_bytes = width // kind.block_size * kind.block_bytes
    rows = max(ROWS, min(rows, memory.nbytes // row_bytes) // ROWS * ROWS)
    return [
        Tensor(name, (width, count), kind, memory.ctypes.data + first * row_bytes, count * row_bytes)
        for first in range(0, rows, most)
        if (count := min(most, rows - first))
    ]


def _products(matrices: list[Tensor], width: int = WIDTH) -> Record:
    def record(recorder: Recorder) -> None:
        for tensor in matrices:
            recorder.linear(recorder._value(width), (tensor, None))

    return record


def _output(stage: Stage, memory: npt.NDArray[np.uint8], types: dict[str, TypeRate], row: float, seconds: float) -> float:
    """By the usual type: rows of one block, less what their operations cost in long rows."""
    if USUAL not in types:
        return 0.0
    narrow = _matrices(memory, USUAL, 1024, 1024, NARROW)
    taken = _net(stage.run(_products(narrow, NARROW), PROMPT, seconds).usual, 2 * row)
    sums = PROMPT * narrow[0].rows
    return max(0.0, taken / sums - 2 * NARROW * types[USUAL].prompt)


def _attention_of_one(stage: Stage, row: float, seconds: float) -> tuple[float, float]:
    """Of one token: what a head costs, and what each value that it looks at adds."""
    kernels = 3  # the rotary table, turning and storing, attending
    short, long = (_net(_attention(stage, 1, context - 1, seconds), kernels * row) for context in (BLOCK_TOKENS, CONTEXT))
    values = HEADS.head_count * (HEADS.key_length + HEADS.value_length)
    slope = max(0.0, (long - short) / ((CONTEXT - BLOCK_TOKENS) * values))
    return max(0.0, short - slope * BLOCK_TOKENS * values) / HEADS.head_count, slope


def _attention_of_prompt(stage: Stage, seconds: float) -> tuple[float, float]:
    """What a head costs that is turned or stored, and each value that is looked at: by a short and a long prompt."""
    turned = HEADS.head_count + 2 * HEADS.head_count_kv
    times = PROMPT // BLOCK_TOKENS
    few, many = (_attention(stage, rows, 0, seconds) for rows in (BLOCK_TOKENS, PROMPT))
    seen = [
        HEADS.head_count * rows * (rows + 1) // 2 * (HEADS.key_length + HEADS.value_length) for rows in (BLOCK_TOKENS, PROMPT)
    ]
    looked = max(0.0, (many - times * few) / (seen[1] - times * seen[0]))
    return max(0.0, many - looked * seen[1]) / (PROMPT * turned), looked


def _attention(stage: Stage, rows: int, first: int, seconds: float) -> float:
    """Seconds for `rows` tokens of one text, the first at position `first`."""

    def record(recorder: Recorder) -> None:
        q, k, v = (recorder._value(heads * HEADS.key_length) for heads in (HEADS.head_count, *[HEADS.head_count_kv] * 2))
        recorder.attention(q, k, v, Attending(0, HEADS, Rotation(np.ones(64), 1.0)))

    def text(recorder: Recorder) -> None:
        recorder.step.positions[:] = np.arange(first, first + rows)
        recorder.step.tables[0, :] = np.arange(BLOCKS)

    return stage.run(record, rows, seconds, text).usual


def _router(stage: Stage, row: float, seconds: float) -> float:
    experts, chosen = 64, 8

    def record(recorder: Recorder) -> None:
        logits = recorder._value(experts)
        for _ in range(IDLE_ROWS):
            recorder.chosen(logits, Routing(chosen, True, 1.0))

    return _net(stage.run(record, 1, seconds).usual, IDLE_ROWS * row) / (IDLE_ROWS * experts * chosen)


def _elements(stage: Stage, seconds: float) -> float:
    def record(recorder: Recorder) -> None:
        x, weight = recorder._value(WIDTH), np.ones(WIDTH, np.float32)
        recorder.add(recorder.rms_norm(x, weight, 1e-6), x)

    return stage.run(record, PROMPT, seconds).usual / (PROMPT * WIDTH)
