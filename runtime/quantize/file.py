"""A model file in other types: tensor by tensor, a few megabytes of each at a time."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from runtime import gguf_writer
from runtime.core import ModelError
from runtime.gguf_file import GGUFFile, Metadata, TensorInfo, open_gguf
from runtime.kernels import cores
from runtime.quantize import mixes, names
from runtime.quantize.encode import ENCODED, encode
from runtime.quantize.mixes import Chooser, Mix, Model, Shape
from runtime.quants import BY_NAME, TYPES

CHUNK = 1 << 20  # values in work by one thread
_VERSION = 2  # general.quantization_version
_AHEAD = 3  # chunks for each thread that are in work or wait to be written

Progress = Callable[[int, int], None]
"""Bytes of the source that are done, and all of them."""

Override = tuple[re.Pattern[str], str]
"""Tensors whose names match get this type instead of the mix's; "": they stay as they are, and no rule counts them."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Task:
    """One tensor: where it lies, and what it becomes."""

    source: TensorInfo
    target: TensorInfo

    @property
    def is_copy(self) -> bool:
        return self.source.type_id == self.target.type_id


def quantize(source: Path, target: BinaryIO, mix: Mix, overrides: Sequence[Override], progress: Progress) -> None:
    """Write the model of `source` (the first file of a split one) to `target`.

    Raises ModelError for a model that cannot be quantised so, GGUFError for a damaged one, OSError.
    """
    with open_gguf(source) as file:
        tasks = _plan(file, mix, overrides)
        alignment = file.alignment
        targets = list(gguf_writer.placed((task.target for task in tasks), alignment))
        target.write(gguf_writer.head(_metadata(file, mix), targets, alignment))
        total, done = sum(task.source.nbytes for task in tasks), 0
        with contextlib.ExitStack() as stack:
            parts = [stack.enter_context(path.open("rb")) for path in file.parts]
            threads = cores.physical()
            pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(threads))
            for task in tasks:
                for read, data in _converted(parts[task.source.part], task, pool, _AHEAD * threads):
                    target.write(data)
                    done += read
                    progress(done, total)
                target.write(bytes(-task.target.nbytes % alignment))


def _metadata(file: GGUFFile, mix: Mix) -> dict[str, bytes]:
    """The source's values; the two that change stand last, as llama.cpp writes them."""
    values = gguf_writer.whole(file.metadata)
    for key, value in (("general.quantization_version", _VERSION), ("general.file_type", mix.file_type)):
        values.pop(key, None)
        values[key] = gguf_writer.uint32(value)
    return values


# ---------------------------------------------------------------- types


def describe(metadata: Metadata) -> Model:
    """What mixes want to know of the model; ModelError when its metadata does not say it."""
    architecture = str(metadata.get("general.architecture", ""))
    n_layers = _number(metadata, f"{architecture}.block_count")
    heads = _number(metadata, f"{architecture}.attention.head_count")
    shared = _number(metadata, f"{architecture}.attention.head_count_kv") or heads
    is_70b = architecture == "llama" and n_layers == 80 and heads != shared
    group = heads // shared if shared else 0
    return Model(architecture, n_layers, _number(metadata, f"{architecture}.expert_count"), group, is_70b)


def _number(metadata: Metadata, key: str) -> int:
    """The number, of an array the first; 0 when there is none."""
    value = metadata.get(key, 0)
    if not isinstance(value, int) and value is not None:
        value = value[0] if len(value) else 0
    return int(value or 0)


def _plan(file: GGUFFile, mix: Mix, overrides: Sequence[Override]) -> list[_Task]:
    shapes = mixes.ordered(Shape(info.name, info.shape, info.type_name) for info in file.tensors.values())
    chosen = {shape.name: next((kind for pattern, kind in overrides if pattern.search(shape.name)), None) for shape in shapes}
    model = describe(file.metadata)
    chooser = Chooser(mix, model, [shape for shape in shapes if chosen[shape.name] != ""])
    return [_task(file.tensors[shape.name], _type(shape, chosen[shape.name], chooser, model)) for shape in shapes]


def _type(shape: Shape, override: str | None, chooser: Chooser, model: Model) -> str:
    if override is None:
        return chooser.type_of(shape)
    if not override or not names.quantizable(shape.name, shape.shape, model.architecture):
        return shape.type_name
    return mixes.fitting(override, shape.shape[0])


def _task(info: TensorInfo, name: str) -> _Task:
    if name == info.type_name:
        return _Task(info, info)
    if name not in ENCODED:
        raise ModelError(f"tensor {info.name!r} would become {name}, which needs an importance matrix")
    if info.type_id not in TYPES:
        raise ModelError(f"tensor {info.name!r} has the type {info.type_name}, which cannot be read")
    kind = BY_NAME[name]
    nbytes = math.prod(info.shape) // kind.block_size * kind.block_bytes
    return _Task(info, dataclasses.replace(info, type_id=kind.type_id, type_name=name, nbytes=nbytes))


# ---------------------------------------------------------------- values


def _converted(part: BinaryIO, task: _Task, pool: concurrent.futures.Executor, ahead: int) -> Iterator[tuple[int, memoryview]]:
    """The tensor's new bytes in pieces, each with the number of bytes that it was made from; `ahead` pieces are in work."""
    waiting: collections.deque[concurrent.futures.Future[tuple[int, memoryview]]] = collections.deque()
    for offset, size in _pieces(task):
        waiting.append(pool.submit(_convert, part.fileno(), task, offset, size))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _pieces(task: _Task) -> Iterator[tuple[int, int]]:
    """(place, bytes) of the source in whole blocks of both types."""
    source, target = TYPES.get(task.source.type_id), TYPES.get(task.target.type_id)
    step = CHUNK if source is None or target is None else CHUNK // source.block_size * source.block_bytes
    for offset in range(0, task.source.nbytes, step):
        yield offset, min(step, task.source.nbytes - offset)


def _convert(descriptor: int, task: _Task, offset: int, size: int) -> tuple[int, memoryview]:
    raw = os.pread(descriptor, size, task.source.offset + offset)
    if len(raw) != size:
        raise ModelError("the model file ended while it was read")
    if task.is_copy:
        return size, memoryview(raw)
    kind = TYPES[task.source.type_id]
    values = kind.dequantize(np.frombuffer(raw, np.uint8).reshape(-1, kind.block_bytes))
    name = task.target.type_name
    try:
        blocks = encode(name, np.ascontiguousarray(values, np.float32).reshape(-1, BY_NAME[name].block_size))
    except ModelError as error:
        raise ModelError(f"tensor {task.source.name!r} {error}") from None
    return size, blocks.data.cast("B")
