"""What attention costs: heads that are turned and stored, and what they look at, near and from memory, a token at a time and in
prompts.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from runtime.core import BLOCK_TOKENS
from runtime.execute.recorder import Recorder
from runtime.layers.ops import Attending, Heads, Rotation
from runtime.measure.products import PROMPT, activations, net
from runtime.measure.stage import BLOCKS, Record, Stage

CONTEXT = 1024  # tokens that attention looks at; they fit the stage's blocks
HEADS = Heads(16, 4, 128, 128, False, 0.1)
SMALL_HEADS = dataclasses.replace(HEADS, key_length=64, value_length=64)
FEW_HEADS = dataclasses.replace(HEADS, head_count=4)  # each has keys and values of its own
FAR_HEADS, FEW_FAR_HEADS = Heads(32, 8, 128, 128, False, 0.1), Heads(8, 8, 128, 128, False, 0.1)
MOST_KEPT = 512 << 20  # bytes of keys and values that are to be read from memory
BEYOND = 4  # times the last cache, of which parts are found again where little more than it is read
ORDINARY = 30  # a byte of which numbers and scales of all kinds have an ordinary size: tiny ones may take ten times longer
KERNELS = 3  # of attention: the rotary table, turning and storing, attending


@dataclasses.dataclass(frozen=True, slots=True)
class Looks:
    """In seconds, all threads together. A head's size is that of its key and its value together."""

    head: float  # a query head's attention, beside its context
    attention: float  # a (query head, position, value of key and value) of a long context in the caches, one row
    look: float  # a (query head, position) there, beside its values
    near: float  # a byte of keys and values there, as many as they are in f16, beside what heads do with it
    attention_kept: float  # a (query head, position, value) of keys and values from memory: what is not hidden by that
    kept: float  # a byte of them, counted so, from there
    turn: float  # in a prompt, a head of queries, keys or values that is turned or stored
    turn_value: float  # a value of key and value of such a head
    begin: float  # a query head of a row there, beside what it looks at
    begin_value: float  # a value of key and value of this one
    attention_prompt: float  # (query head, position, value) and (query head, position) there
    look_prompt: float


def looks(stage: Stage, row: float, cache_bytes: int, seconds: float) -> Looks:
    """`row`: what a row of a Program costs by itself; `cache_bytes`: of the last cache; `seconds` of a measurement."""
    return Looks(*_of_one(stage, row, seconds), *_from_memory(stage, row, cache_bytes, seconds), *_of_prompt(stage, seconds))


def _of_one(stage: Stage, row: float, seconds: float) -> tuple[float, float, float, float]:
    """Of one token: what a head costs, what each value that it looks at adds, each position, and a byte of keys and values."""

    def slope(heads: Heads) -> tuple[float, float]:
        """Seconds of a short context, and of a position of all heads."""
        short, long = (net(_attention(stage, heads, n - 1, seconds), KERNELS * row) for n in (BLOCK_TOKENS, CONTEXT))
        return short, max(0.0, (long - short) / (CONTEXT - BLOCK_TOKENS))

    (short, many), (_, few), (_, small) = (slope(heads) for heads in (HEADS, FEW_HEADS, SMALL_HEADS))
    position, byte = shared(many, few, HEADS, FEW_HEADS)
    small_position = max(0.0, small - byte * _bytes(SMALL_HEADS)) / SMALL_HEADS.head_count
    value, look = apart(position, small_position)
    return max(0.0, short - many * BLOCK_TOKENS) / HEADS.head_count, value, look, byte


def _from_memory(stage: Stage, row: float, cache_bytes: int, seconds: float) -> tuple[float, float]:
    """Of one token that looks at keys and values that no cache holds: a value of a head, and a byte."""
    positions = BLOCKS * BLOCK_TOKENS
    layers = max(1, int(min(MOST_KEPT, BEYOND * cache_bytes) // (positions * _bytes(FAR_HEADS) * stage.kept_share)))

    def taken(heads: Heads) -> float:
        """Seconds of a position of a layer: of several layers in turn, the last position looks at all others."""
        return net(_attention(stage, heads, positions - 1, seconds, layers), KERNELS * layers * row) / (layers * positions)

    position, byte = shared(taken(FAR_HEADS), taken(FEW_FAR_HEADS), FAR_HEADS, FEW_FAR_HEADS)
    return position / _size(FAR_HEADS), byte


def shared(many: float, few: float, heads: Heads, few_heads: Heads) -> tuple[float, float]:
    """Seconds of a position of a head, and of a byte that heads share, from those of a position of many and of few heads with
    the same keys and values."""
    position = min(max(0.0, many - few) / (heads.head_count - few_heads.head_count), few / few_heads.head_count)
    return position, (few - few_heads.head_count * position) / _bytes(heads)


def _size(heads: Heads) -> int:
    return heads.key_length + heads.value_length


def _bytes(heads: Heads) -> int:
    """Of the keys and values of a position, in f16."""
    return 2 * heads.head_count_kv * _size(heads)


def _of_prompt(stage: Stage, seconds: float) -> tuple[float, float, float, float, float, float]:
    """The last six of Looks: by large and small heads."""
    large, small = (_of_heads(stage, heads, seconds) for heads in (HEADS, SMALL_HEADS))
    (turn_value, turn), (begin_value, begin), looking = (apart(*times) for times in zip(large, small, strict=True))
    return turn, turn_value, begin, begin_value, *looking


def _of_heads(stage: Stage, heads: Heads, seconds: float) -> tuple[float, float, float]:
    """Seconds of a head that is turned or stored, of a row's query head beside what it looks at, and of a position of it: by as
    many rows at the beginning of a text and further on, since of few rows there is too little work for many threads."""
    turned, places = PROMPT * (heads.head_count + 2 * heads.head_count_kv), (0, CONTEXT - PROMPT)
    seen = [heads.head_count * PROMPT * (2 * first + PROMPT + 1) // 2 for first in places]
    first, later = (stage.parts(_record(heads), PROMPT, seconds, _text(place, PROMPT)) for place in places)
    short, long = (taken["attention.attend"] for taken in (first, later))
    position = max(0.0, (long - short) / (seen[1] - seen[0]))
    begin = max(0.0, short - position * seen[0]) / (PROMPT * heads.head_count)
    return first["attention.rotate_store"] / turned, begin, position


def apart(large: float, small: float) -> tuple[float, float]:
    """Seconds of a value, and beside its values, from those of a head of HEADS and of one of SMALL_HEADS."""
    sizes = _size(HEADS), _size(SMALL_HEADS)
    value = min(max(0.0, (large - small) / (sizes[0] - sizes[1])), large / sizes[0])
    return value, large - value * sizes[0]


def _attention(stage: Stage, heads: Heads, position: int, seconds: float, layers: int = 1) -> float:
    """Seconds for a token at that position."""
    return stage.run(_record(heads, layers), 1, seconds, _text(position, 1)).usual


def _record(heads: Heads, layers: int = 1) -> Record:
    def record(recorder: Recorder) -> None:
        q, k, v = (activations(recorder, count * heads.key_length) for count in (heads.head_count, *[heads.head_count_kv] * 2))
        rotation = Rotation(np.ones(heads.key_length // 2), 1.0)
        for layer in range(layers):
            recorder.attention(q, k, v, Attending(layer, heads, rotation))

    return record


def _text(first: int, rows: int) -> Record:
    """So many tokens of one text from position `first` on."""

    def prepare(recorder: Recorder) -> None:
        recorder.step.positions[:] = np.arange(first, first + rows)
        recorder.step.tables[0, :] = np.arange(BLOCKS)
        for cache in recorder.caches:  # pages that nobody has written to are one and the same
            cache.keys[:BLOCKS] = cache.values[:BLOCKS] = ORDINARY

    return prepare
