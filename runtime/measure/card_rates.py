"""What a layer and a step cost on a card, measured on slices of a model (see `slices`) with the executor that runs models.

A slice's layers in VRAM, the same layers with the experts in RAM, and one layer alone: their differences tell what a layer costs,
and what is spent beside the layers. Narrow layers, in VRAM, tell what of a layer's time does not go by its size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runtime.core import ModelError
from runtime.execute.hybrid import HybridExecutor
from runtime.measure import card_parts, on_card, slices
from runtime.measure.batches import Texts
from runtime.measure.parts import card_part_of
from runtime.measure.slices import Slice
from runtime.measure.subject import Wanted
from runtime.weights import Progress

CONTEXT, SHORT, LONG = 2304, 64, 2048  # tokens
TOKENS, TRIES = 96, 3
PROMPTS = (64, 512, 2048)  # tokens of a step: what launching takes, what the bus takes, what the card takes
MOST_BYTES = 1600 << 20  # of a slice


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a slice."""

    token: float  # after a short text
    late: float  # after a long one
    steps: tuple[float, ...]  # of PROMPTS


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """Seconds of some of a token's kernels, in a slice in VRAM."""

    experts: float
    output: float


def rates(usual: str, better: str, cache_bytes: int, scratch: str, progress: Progress) -> dict[str, Any]:
    """Seconds, bytes and operations; see `combined`. `usual`, `better`: types of the slices' weights; `scratch`: a folder for
    slices, empty: the system's. ModelError where the card cannot be used, OSError where there is no room."""
    single = Slice(1, usual, better)
    several = dataclasses.replace(single, layers=slices.layers_beyond(cache_bytes, single, MOST_BYTES))
    small = slices.narrow(several)
    small_single = dataclasses.replace(small, layers=1)
    with tempfile.TemporaryDirectory(prefix="moellama-slices-", dir=scratch or None) as folder:
        paths = {shape: Path(folder) / f"{number}.gguf" for number, shape in enumerate((several, single, small, small_single))}
        progress("writing slices of a model", 0, 1)
        for shape, path in paths.items():
            slices.write(shape, path)
        progress("timing layers on the card", 0, 1)
        alone, there, few, fewer = (_timed(paths[shape], None, progress) for shape in (single, several, small_single, small))
        handed = _timed(paths[several], 0, progress)
        # last of all: what the profiler leaves behind in the process slows every kernel after it
        parts, small_parts = (_profiled(paths[shape], progress) for shape in (several, small))
    return combined(several, alone, there, handed, parts) | {"narrow": narrow(small, few, fewer, small_parts)}


def combined(shape: Slice, alone: Times, there: Times, handed: Times, parts: Parts) -> dict[str, Any]:
    """`alone`: one layer in VRAM; `there`: all of the slice's, `parts` of whose token are known; `handed`: these with their
    experts in RAM."""
    layers = shape.layers
    layer = (there.token - alone.token) / (layers - 1)
    head, experts = alone.token - layer, parts.experts / layers
    return {
        "layer_bytes": shape.layer_bytes,  # all but the experts
        "expert_bytes": shape.expert_types,  # that a token reads in a layer, by type
        "stack_bytes": shape.stack_bytes,  # of all experts of a layer
        "output_bytes": shape.output_bytes,
        "operations": shape.operations,  # of a token in a layer: all but the experts, and the experts
        "head": head,  # of a token, beside its layers
        "output": parts.output,  # of that, the product with the output
        "layer": layer - experts,  # all but the experts
        "experts": experts,  # in VRAM
        "handed": (handed.token - head) / layers,  # a layer with its experts in RAM
        "position": max(0.0, there.late - there.token) / (layers * (LONG - SHORT) * shape.heads * 2 * shape.head),
        "steps": [_step(*step, layers) for step in zip(PROMPTS, alone.steps, there.steps, handed.steps, strict=True)],
    }


def narrow(shape: Slice, alone: Times, there: Times, parts: Parts) -> dict[str, Any]:
    """The same of narrow layers, as far as they are of use."""
    layers = shape.layers
    return {
        "layer_bytes": shape.layer_bytes,
        "operations": shape.operations,
        "layer": (there.token - alone.token) / (layers - 1) - parts.experts / layers,
        "steps": [_step(*step, layers) for step in zip(PROMPTS, alone.steps, there.steps, there.steps, strict=True)],
    }


def _step(rows: int, alone: float, there: float, streamed: float, layers: int) -> dict[str, float]:
    """`streamed` is the copy of a layer, where that is the limit: the last layer is computed after it."""
    layer = (there - alone) / (layers - 1)
    return {"rows": rows, "head": alone - layer, "layer": layer, "streamed": (streamed - alone) / layers}


def _timed(path: Path, resident: int | None, progress: Progress) -> Times:
    with _loaded(path, resident, progress) as run:
        texts = Texts(run, 1, CONTEXT)
        steps = []
        for rows in PROMPTS:
            read = functools.partial(texts.read, 0, rows)
            read()
            steps.append(statistics.median(_seconds(read) for _ in range(TRIES)))
        short, late = (_token(run, texts, position) for position in (SHORT, LONG))
        return Times(short, late, tuple(steps))


def _profiled(path: Path, progress: Progress) -> Parts:
    with _loaded(path, None, progress) as run:
        parts: defaultdict[str, float] = defaultdict(float)
        for kernel in card_parts.kernels(run, functools.partial(Texts(run, 1, CONTEXT).next, SHORT)):
            parts[card_part_of(kernel.name, kernel.tensor)] += kernel.seconds
        return Parts(parts["GPU experts"], parts["output"])


@contextlib.contextmanager
def _loaded(path: Path, resident: int | None, progress: Progress) -> Iterator[HybridExecutor]:
    wanted = Wanted(str(path), CONTEXT, 1, 0, -1, 0, 0, 0, pcie=False)
    subject = on_card.load(wanted, progress, resident=resident, over_pcie=0.0)
    if subject is None:
        raise ModelError("a slice of a model does not run on the card")
    try:
        yield subject.executor
    finally:
        subject.executor.close()


def _token(run: HybridExecutor, texts: Texts, position: int) -> float:
    for _ in range(3):
        run.forward(texts.next(position))
    return statistics.median(_seconds(lambda: run.forward(texts.next(position))) for _ in range(TOKENS))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
