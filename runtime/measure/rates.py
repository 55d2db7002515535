"""How fast the kernels are: what products cost (see `products`), and what a step costs besides.

Everything is measured through the recorder and the drivers that a model runs on, so the figures hold for models.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.core import BLOCK_TOKENS, Batch, FloatArray
from runtime.execute.recorded import Recorded
from runtime.execute.recorder import Recorder
from runtime.execute.step import Limits
from runtime.kernels.leaves import Leaves
from runtime.layers.ops import Attending, DeltaWeights, Heads, Recurrence, Rotation, Routing
from runtime.measure.batches import Texts
from runtime.measure.products import (
    NARROW,
    PROMPT,
    ROWS,
    WIDTH,
    TypeRate,
    activations,
    matrices,
    net,
    output_prompt,
    products,
    type_rate,
)
from runtime.measure.stage import BLOCKS, Stage
from runtime.quants import BY_NAME

CONTEXT = 1024  # tokens that attention looks at; they fit the stage's blocks
HEADS = Heads(16, 4, 128, 128, False, 0.1)
SMALL_HEADS = dataclasses.replace(HEADS, key_length=64, value_length=64)
FEW_HEADS = dataclasses.replace(HEADS, head_count=4)  # each has keys and values of its own
FAR_HEADS, FEW_FAR_HEADS = Heads(32, 8, 128, 128, False, 0.1), Heads(8, 8, 128, 128, False, 0.1)
MOST_KEPT = 512 << 20  # bytes of keys and values that are to be read from memory
BEYOND = 4  # times the last cache, of which parts are found again where little more than it is read
STATE = Recurrence(16, 32, 128, 4, grouped=True, eps=1e-6)
KERNELS = 3  # of attention: the rotary table, turning and storing, attending
IDLE_ROWS = 200
STEPS = 400  # of a Program with one row
LINE = 256  # values of a row that show what one costs beside its values
USUAL = "Q4_K"  # the type that shows what short rows cost


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """What a step is made of, in seconds, for so many threads. 0 where it was not measured."""

    threads: int
    types: dict[str, TypeRate]
    row: float  # a row of a Program with next to nothing to do: the call, and what threads wait for one another
    step: float = 0.0  # beside its rows: a batch of one token is made and entered, and the threads are called
    router: float = 0.0  # a (token, expert, choice) of choosing experts
    output_prompt: float = 0.0  # in a prompt, a sum of a weight row and a row beside its operations: short rows cost more
    head: float = 0.0  # a query head's attention, beside its context
    attention: float = 0.0  # a (query head, position, value of key and value) of a long context in the caches, one row
    look: float = 0.0  # a (query head, position) there, beside its values
    near: float = 0.0  # a byte of keys and values there, as many as they are in f16, beside what heads do with it
    attention_kept: float = 0.0  # a (query head, position, value) of keys and values from memory: what is not hidden by that
    kept: float = 0.0  # a byte of them, counted so, from there
    attention_prompt: float = 0.0  # (query head, position, value) and (query head, position) in a prompt
    look_prompt: float = 0.0
    turn: float = 0.0  # in a prompt, a head of queries, keys or values that is turned or stored
    line: float = 0.0  # in a prompt, a row of a kernel that takes rows one by one, beside its elements
    element: float = 0.0  # in a prompt, an element that is normed, packed and added; a single token's are one thread's work
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
    head, attention, look, near = _attention_of_one(stage, row, seconds)
    attention_kept, kept = _attention_from_memory(stage, row, cache_bytes, seconds)
    turn, attention_prompt, look_prompt = _attention_of_prompt(stage, seconds)
    line, element = _elements(stage, usual, seconds)
    state, state_prompt = _states(stage, row, cache_bytes, seconds) if states else (0.0, 0.0)
    return dataclasses.replace(
        known,
        step=_step(stage.leaves, stage.threads),
        row=min(row, _row(stage, memory, usual)),  # again, since a core that was taken away for a moment would count in every row
        router=_router(stage, row, seconds),
        output_prompt=output_prompt(stage, memory, usual, known.types[usual].prompt, row, seconds),
        head=head,
        attention=attention,
        look=look,
        near=near,
        attention_kept=attention_kept,
        kept=kept,
        attention_prompt=attention_prompt,
        look_prompt=look_prompt,
        turn=turn,
        line=line,
        element=element,
        state=state,
        state_prompt=state_prompt,
    )


def average(several: Sequence[Rates]) -> Rates:
    """The means of what was measured several times, one after the other: a host moves the cores of a virtual machine about, and
    others take their share of its memory."""
    types = {name: TypeRate(**_means([found.types[name] for found in several])) for name in several[0].types}
    return Rates(threads=several[0].threads, types=types, **_means(several))


def _means(several: Sequence[Rates] | Sequence[TypeRate]) -> dict[str, float]:
    """Of all fields that are seconds."""
    names = [field.name for field in dataclasses.fields(several[0]) if field.type == "float"]
    return {name: statistics.fmean(getattr(found, name) for found in several) for name in names}


# ------------------------------------------------------------ steps and rows


class _Idle:
    """An executor whose Program has one row, as small as can be."""

    n_vocab, max_rows = LINE, 1

    def __init__(self, leaves: Leaves, threads: int) -> None:
        recorder = Recorder(leaves, threads, Limits(1, 1, BLOCKS, BLOCKS, BLOCKS))
        self._recorded = Recorded(recorder, recorder.outputs(recorder._value(LINE)), threads)

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


def _row(stage: Stage, memory: npt.NDArray[np.uint8], usual: str) -> float:
    """As rows of a single token are: one that is the first thread's alone, and one that all share, in turn. What a thread that
    is alone does here is so little that rows without any work show the call better."""
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

    taken = stage.run(record, 1, 0.02, empty, single=True)
    return taken.fastest / (IDLE_ROWS // 2) if stage.threads == 1 else taken.usual / IDLE_ROWS


# ------------------------------------------------------------ attention


def _attention_of_one(stage: Stage, row: float, seconds: float) -> tuple[float, float, float, float]:
    """Of one token: what a head costs, what each value that it looks at adds, each position, and a byte of keys and values."""

    def slope(heads: Heads) -> tuple[float, float]:
        """Seconds of a short context, and of a position of all heads."""
        short, long = (net(_attention(stage, heads, 1, n - 1, seconds), KERNELS * row) for n in (BLOCK_TOKENS, CONTEXT))
        return short, max(0.0, (long - short) / (CONTEXT - BLOCK_TOKENS))

    (short, many), (_, few), (_, small) = (slope(heads) for heads in (HEADS, FEW_HEADS, SMALL_HEADS))
    position, byte = _shared(many, few, HEADS, FEW_HEADS)
    small_position = max(0.0, small - byte * _bytes(SMALL_HEADS)) / SMALL_HEADS.head_count
    value, look = _apart(position, small_position)
    return max(0.0, short - many * BLOCK_TOKENS) / HEADS.head_count, value, look, byte


def _attention_from_memory(stage: Stage, row: float, cache_bytes: int, seconds: float) -> tuple[float, float]:
    """Of one token that looks at keys and values that no cache holds: a value of a head, and a byte."""
    positions = BLOCKS * BLOCK_TOKENS
    layers = max(1, int(min(MOST_KEPT, BEYOND * cache_bytes) // (positions * _bytes(FAR_HEADS) * stage.kept_share)))

    def taken(heads: Heads) -> float:
        """Seconds of a position of a layer: of several layers in turn, the last position looks at all others."""
        return net(_attention(stage, heads, 1, positions - 1, seconds, layers), KERNELS * layers * row) / (layers * positions)

    position, byte = _shared(taken(FAR_HEADS), taken(FEW_FAR_HEADS), FAR_HEADS, FEW_FAR_HEADS)
    return position / (FAR_HEADS.key_length + FAR_HEADS.value_length), byte


def _shared(many: float, few: float, heads: Heads, few_heads: Heads) -> tuple[float, float]:
    """Seconds of a position of a head, and of a byte that heads share, from those of a position of many and of few heads with
    the same keys and values."""
    position = min(max(0.0, many - few) / (heads.head_count - few_heads.head_count), few / few_heads.head_count)
    return position, (few - few_heads.head_count * position) / _bytes(heads)


def _bytes(heads: Heads) -> int:
    """Of the keys and values of a position, in f16."""
    return 2 * heads.head_count_kv * (heads.key_length + heads.value_length)


def _attention_of_prompt(stage: Stage, seconds: float) -> tuple[float, float, float]:
    """What a head costs that is turned or stored, each value that is looked at, and each position: by short and long prompts."""
    times, turned = PROMPT // BLOCK_TOKENS, PROMPT * (HEADS.head_count + 2 * HEADS.head_count_kv)
    looks = [HEADS.head_count * rows * (rows + 1) // 2 for rows in (BLOCK_TOKENS, PROMPT)]

    def slope(heads: Heads) -> tuple[float, float]:
        """Seconds of a long prompt, and of a position of a head."""
        few, many = (_attention(stage, heads, rows, 0, seconds) for rows in (BLOCK_TOKENS, PROMPT))
        return many, max(0.0, (many - times * few) / (looks[1] - times * looks[0]))

    many, position = slope(HEADS)
    value, look = _apart(position, slope(SMALL_HEADS)[1])
    return max(0.0, many - position * looks[1]) / turned, value, look


def _apart(position: float, small: float) -> tuple[float, float]:
    """Seconds of a value, and of a position beside its values, from those of a position of HEADS and of SMALL_HEADS."""
    sizes = [heads.key_length + heads.value_length for heads in (HEADS, SMALL_HEADS)]
    value = min(max(0.0, (position - small) / (sizes[0] - sizes[1])), position / sizes[0])
    return value, position - value * sizes[0]


def _attention(stage: Stage, heads: Heads, rows: int, first: int, seconds: float, layers: int = 1) -> float:
    """Seconds for `rows` tokens of one text, the first at position `first`."""

    def record(recorder: Recorder) -> None:
        q, k, v = (activations(recorder, count * heads.key_length) for count in (heads.head_count, *[heads.head_count_kv] * 2))
        rotation = Rotation(np.ones(heads.key_length // 2), 1.0)
        for layer in range(layers):
            recorder.attention(q, k, v, Attending(layer, heads, rotation))

    def text(recorder: Recorder) -> None:
        recorder.step.positions[:] = np.arange(first, first + rows)
        recorder.step.tables[0, :] = np.arange(BLOCKS)
        for cache in recorder.caches:  # pages that nobody has written to are one and the same
            cache.keys[:BLOCKS] = cache.values[:BLOCKS] = 1

    return stage.run(record, rows, seconds, text).usual


# ------------------------------------------------------------ the rest


def _router(stage: Stage, row: float, seconds: float) -> float:
    experts, chosen = 64, 8

    def record(recorder: Recorder) -> None:
        logits = activations(recorder, experts)
        for _ in range(IDLE_ROWS):
            recorder.chosen(logits, Routing(chosen, True, 1.0))

    return net(stage.run(record, 1, seconds).usual, IDLE_ROWS * row) / (IDLE_ROWS * experts * chosen)


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


def _elements(stage: Stage, usual: str, seconds: float) -> tuple[float, float]:
    """What a row of activations costs beside its elements, and an element of three kernels, by wide and narrow rows."""

    form = BY_NAME[usual].activation

    def taken(width: int) -> float:
        """Seconds of a row."""

        def record(recorder: Recorder) -> None:
            x, weight = activations(recorder, width), np.ones(width, np.float32)
            for _ in range(WIDTH // width):
                normed = recorder.rms_norm(x, weight, 1e-6)
                recorder._packed(normed, form)
                recorder.add(normed, x)

        return stage.run(record, PROMPT, seconds).usual / (PROMPT * (WIDTH // width))

    wide, narrow = taken(WIDTH), taken(LINE)
    element = max(0.0, wide - narrow) / (WIDTH - LINE)
    return max(0.0, narrow - LINE * element) / 3, element
