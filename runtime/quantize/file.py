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
from runtime.quantize.encode import encode
from runtime.quantize.importance import ImportanceMatrix
from runtime.quantize.mixes import Chooser, Mix, Model, Shape
from runtime.quantize.weighing import NEEDY, WEIGHED
from runtime.quants import BY_NAME, TYPES
from runtime.quants.base import Floats

CHUNK = 1 << 20  # values in work by one thread
_VERSION = 2  # general.quantization_version
_AHEAD = 3  # chunks for each thread that are in work or wait to be written

Progress = Callable[[int, int], None]
"""Bytes of the source that are done, and all of them."""

Override = tuple[re.Pattern[str], str]
"""Tensors whose names match get this type instead of the mix's; "": they stay as they are, and no rule counts them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Matrix:
    """An importance matrix, and the name of its file for the new one's metadata."""

    content: ImportanceMatrix
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Task:
    """One tensor: where it lies, what it becomes, and what weighs its errors."""

    source: TensorInfo
    target: TensorInfo
    matrix: ImportanceMatrix | None = None

    @property
    def is_copy(self) -> bool:
        return self.source.type_id == self.target.type_id


def quantize(
    source: Path, target: BinaryIO, mix: Mix, overrides: Sequence[Override], progress: Progress, matrix: Matrix | None = None
) -> None:
    """Write the model of `source` (the first file of a split one) to `target`.

    Raises ModelError for a model that cannot be quantised so, GGUFError for a damaged one, OSError.
    """
    with open_gguf(source) as file:
        tasks = _plan(file, mix, overrides, matrix.content if matrix else None)
        alignment = file.alignment
        targets = list(gguf_writer.placed((task.target for task in tasks), alignment))
        target.write(gguf_writer.head(_metadata(file, mix, matrix), targets, alignment))
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


def _metadata(file: GGUFFile, mix: Mix, matrix: Matrix | None) -> dict[str, bytes]:
    """The source's values; those that change or are new stand last, as llama.cpp writes them."""
    values = gguf_writer.whole(file.metadata)
    new = {
        "general.quantization_version": gguf_writer.uint32(_VERSION),
        "general.file_type": gguf_writer.uint32(mix.file_type),
        **(_of_matrix(matrix) if matrix else {}),
    }
    return {key: value for key, value in values.items() if key not in new} | new


def _of_matrix(matrix: Matrix) -> dict[str, bytes]:
    """What metadata tell of an importance matrix."""
    content = matrix.content
    found = {
        "file": gguf_writer.string(matrix.name),
        "dataset": gguf_writer.string(content.dataset) if content.dataset else b"",
        "entries_count": gguf_writer.uint32(len(content.entries)),
        "chunks_count": gguf_writer.uint32(content.chunks) if content.chunks > 0 else b"",
    }
    return {f"quantize.imatrix.{key}": value for key, value in found.items() if value}


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


def _plan(file: GGUFFile, mix: Mix, overrides: Sequence[Override], matrix: ImportanceMatrix | None) -> list[_Task]:
    shapes = mixes.ordered(Shape(info.name, info.shape, info.type_name) for info in file.tensors.values())
    chosen = {shape.name: next((kind for pattern, kind in overrides if pattern.search(shape.name)), None) for shape in shapes}
    model = dataclasses.replace(describe(file.metadata), has_matrix=matrix is not None)
    chooser = Chooser(mix, model, [shape for shape in shapes if chosen[shape.name] != ""])
    return [_task(file.tensors[shape.name], _type(shape, chosen[shape.name], chooser, model), matrix) for shape in shapes]


def _type(shape: Shape, override: str | None, chooser: Chooser, model: Model) -> str:
    if override is None:
        return chooser.type_of(shape)
    if not override or not names.quantizable(shape.name, shape.shape, model.architecture):
        return shape.type_name
    return mixes.fitting(override, shape.shape[0])


def _task(info: TensorInfo, name: str, matrix: ImportanceMatrix | None) -> _Task:
    if name == info.type_name:
        return _Task(info, info)
    weighed = name in WEIGHED and matrix is not None and matrix.has(info.name, info.shape)
    if name in NEEDY and not weighed:
        lack = "of which the importance matrix says nothing" if matrix else "which needs an importance matrix"
        raise ModelError(f"tensor {info.name!r} would become {name}, {lack}")
    if info.type_id not in TYPES:
        raise ModelError(f"tensor {info.name!r} has the type {info.type_name}, which cannot be read")
    kind = BY_NAME[name]
    nbytes = math.prod(info.shape) // kind.block_size * kind.block_bytes
    target = dataclasses.replace(info, type_id=kind.type_id, type_name=name, nbytes=nbytes)
    return _Task(info, target, matrix if weighed else None)


# ---------------------------------------------------------------- values


def _converted(part: BinaryIO, task: _Task, pool: concurrent.futures.Executor, ahead: int) -> Iterator[tuple[int, memoryview]]:
    """The tensor's new bytes in pieces, each with the number of bytes that it was made from; `ahead` pieces are in work."""
    waiting: collections.deque[concurrent.futures.Future[tuple[int, memoryview]]] = collections.deque()
    table = task.matrix.table(task.source.name, task.source.shape[0]) if task.matrix else None
    for offset, size in _pieces(task):
        waiting.append(pool.submit(_convert, part.fileno(), task, table, offset, size))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _pieces(task: _Task) -> Iterator[tuple[int, int]]:
    """(place, bytes) of the source in whole blocks of both types, and in whole rows where errors are weighed."""
    source, target = TYPES.get(task.source.type_id), TYPES.get(task.target.type_id)
    row = task.source.shape[0]
    values = max(1, CHUNK // row) * row if task.matrix else CHUNK
    step = values if source is None or target is None else values // source.block_size * source.block_bytes
    for offset in range(0, task.source.nbytes, step):
        yield offset, min(step, task.source.nbytes - offset)


def _convert(descriptor: int, task: _Task, table: Floats | None, offset: int, size: int) -> tuple[int, memoryview]:
    """`table`: (matrices, row), see `ImportanceMatrix`."""
    raw = os.pread(descriptor, size, task.source.offset + offset)
    if len(raw) != size:
        raise ModelError("the model file ended while it was read")
    if task.is_copy:
        return size, memoryview(raw)
    kind, name = TYPES[task.source.type_id], task.target.type_name
    values = kind.dequantize(np.frombuffer(raw, np.uint8).reshape(-1, kind.block_bytes))
    row = BY_NAME[name].block_size if table is None else table.shape[1]
    rows = np.ascontiguousarray(values, np.float32).reshape(-1, row)
    try:
        blocks = encode(name, rows, None if table is None else _of_rows(table, task, offset // kind.block_bytes, rows))
    except ModelError as error:
        raise ModelError(f"tensor {task.source.name!r} {error}") from None
    return size, blocks.data.cast("B")


def _of_rows(table: Floats, task: _Task, block: int, rows: Floats) -> Floats:
    """The importance of each value of `rows`, which begin with a block of the source: that of the matrix they belong to."""
    shape = task.source.shape
    first = block * TYPES[task.source.type_id].block_size // shape[0]
    matrices = (first + np.arange(len(rows))) // shape[1] % len(table)
    return np.ascontiguousarray(table[matrices])
