"""How fast the kernels are: what products cost (see `products`), and what a step costs besides.

Everything is measured through the recorder and the drivers that a model runs on, so the figures hold for models.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.core import BLOCK_TOKENS, Batch, FloatArray
from runtime.execute.recorded import Recorded
from runtime.execute.recorder import Recorder
from runtime.execute.step import Limits
from runtime.kernels.leaves import Leaves
from runtime.layers.ops import DeltaWeights, Recurrence
from runtime.measure.batches import Texts
from runtime.measure.looks import Looks, looks
from runtime.measure.products import NARROW, PROMPT, ROWS, TypeRate, activations, matrices, net, outputs, products, type_rate
from runtime.measure.stage import BLOCKS, Stage
from runtime.measure.vectors import VectorRate, vectors

STATE = Recurrence(16, 32, 128, 4, grouped=True, eps=1e-6)
IDLE_ROWS = 200
STEPS = 400  # of a Program with one row
USUAL = "Q4_K"  # the type that shows what short rows cost


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """What a step is made of, in seconds, for so many threads. What is None or 0 was not measured."""

    threads: int
    types: dict[str, TypeRate]
    row: float  # a row of a Program with next to nothing to do, where a token is alone: the call, and what threads wait
    row_shared: float = 0.0  # the same where there are several tokens, so that threads share every row
    step: float = 0.0  # beside its rows: a batch of one token is made and entered, and the threads are called
    vectors: dict[str, VectorRate] = dataclasses.field(default_factory=dict)
    output_prompt: float = 0.0  # a sum of a weight row and a row of activations beside its operations
    output_least: float = 0.0  # such a sum in a prompt at the least, where it has hardly any operations
    looks: Looks | None = None
    state: float = 0.0  # a value of the states that recurrent layers keep, one token
    state_prompt: float = 0.0  # the same, a token of a prompt


def products_alone(stage: Stage, memory: npt.NDArray[np.uint8], types: list[str], cache_bytes: int, seconds: float) -> Rates:
    """What weights of types take that the CPU multiplies; `seconds` for each single measurement. `cache_bytes`: of the last
    cache."""
    row = _row(stage, memory, _usual(types))
    return Rates(stage.threads, {name: type_rate(stage, memory, name, cache_bytes, row, seconds) for name in types}, row)


def _usual(types: list[str]) -> str:
    return USUAL if USUAL in types else types[0]


def rates(
    stage: Stage, memory: npt.NDArray[np.uint8], types: list[str], cache_bytes: int, seconds: float, *, states: bool = False
) -> Rates:
    """What models take. `states`: those of recurrent layers too."""
    usual, known = _usual(types), products_alone(stage, memory, types, cache_bytes, seconds)
    row = known.row
    beside, least = outputs(stage, memory, usual, known.types[usual].prompt, row, seconds)
    state, state_prompt = _states(stage, row, cache_bytes, seconds) if states else (0.0, 0.0)
    return dataclasses.replace(
        known,
        step=_step(stage.leaves, stage.threads),
        row=min(row, _row(stage, memory, usual)),  # again, since a core that was taken away for a moment would count in every row
        row_shared=_row(stage, memory, usual, single=False),
        vectors=vectors(stage, usual, seconds),
        output_prompt=beside,
        output_least=least,
        looks=looks(stage, row, cache_bytes, seconds),
        state=state,
        state_prompt=state_prompt,
    )


def middle(several: Sequence[Any]) -> Any:
    """Of what was measured several times, one after the other, the medians of all fields that are seconds: others come and go,
    and a host moves the cores of a virtual machine about."""
    first = several[0]
    if isinstance(first, float):
        return statistics.median(several)
    if isinstance(first, dict):
        return {name: middle([each[name] for each in several]) for name in first}
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        return dataclasses.replace(first, **{name: middle([getattr(each, name) for each in several]) for name in names})
    return first


# ------------------------------------------------------------ steps and rows


class _Idle:
    """An executor whose Program has one row, as small as can be."""

    n_vocab, max_rows = NARROW, 1

    def __init__(self, leaves: Leaves, threads: int) -> None:
        recorder = Recorder(leaves, threads, Limits(1, 1, BLOCKS, BLOCKS, BLOCKS))
        self._recorded = Recorded(recorder, recorder.outputs(recorder._value(NARROW)), threads)

    def forward(self, batch: Batch) -> FloatArray:
        self._recorded.run(batch)
        return self._recorded.result[: len(batch.outputs)]

    def close(self) -> None:
        self._recorded.close()


def _step(leaves: Leaves, threads: int) -> float:
    idle = _Idle(leaves, threads)
    try:
        texts = Texts(idle, 1, BLOCK_TOKENS)
        write = functools.partial(lambda: idle.forward(texts.next(0)).argmax(-1))
        times = []
        for _ in range(STEPS):
            begin = time.perf_counter()
            write()
            times.append(time.perf_counter() - begin)
        return statistics.median(times)
    finally:
        idle.close()


def _row(stage: Stage, memory: npt.NDArray[np.uint8], usual: str, *, single: bool = True) -> float:
    """As rows are of a single token: one that is the first thread's alone, and one that all share, in turn. What a thread that
    is alone does here is so little that rows without any work show the call better. Not `single`: as all share them all."""
    shared = matrices(memory, usual, ROWS, ROWS, NARROW)

    def record(recorder: Recorder) -> None:
        value = recorder._value(NARROW)
        for _ in range(IDLE_ROWS // 2):
            if stage.threads == 1:
                recorder.add(value, value)
            else:
                products(shared, NARROW)(recorder)

    def empty(recorder: Recorder) -> None:
        recorder.step.counts[0] = min(1, stage.threads - 1)

    taken = stage.run(record, 1, 0.02, empty, single=single)
    return taken.fastest / (IDLE_ROWS // 2) if stage.threads == 1 else taken.usual / IDLE_ROWS


# ------------------------------------------------------------ the rest


def _states(stage: Stage, row: float, cache_bytes: int, seconds: float) -> tuple[float, float]:
    """Of one token with states that no cache holds, and of a token of a prompt, which one layer takes as a whole."""
    values = STATE.value_heads * STATE.size * STATE.size
    heads, size = STATE.value_heads, STATE.size
    weights = DeltaWeights(
        np.full((STATE.channels, STATE.kernel), 0.1, np.float32),
        np.full(heads, -1.0, np.float32),
        np.zeros(heads, np.float32),
        np.ones(size, np.float32),
    )

    def taken(layers: int, rows: int) -> float:
        """Seconds of a token and a layer."""

        def record(recorder: Recorder) -> None:
            qkv, z, alpha, beta = (activations(recorder, width) for width in (STATE.channels, heads * size, heads, heads))
            for layer in range(layers):
                recorder.delta(layer, qkv, z, alpha, beta, STATE, weights)

        return net(stage.run(record, rows, seconds).usual, 4 * layers * row) / (layers * rows)

    many = max(4, min(128, 2 * cache_bytes // (4 * values)))
    return taken(many, 1) / values, taken(1, PROMPT) / values
