"""The job `machine`: what this machine really executes and how fast it is, without a model."""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from typing import Any

from runtime import models, published
from runtime.core import ModelError
from runtime.execute import cards, strips
from runtime.execute.cpu import THREAD_BYTES
from runtime.execute.placement import wants_gpu
from runtime.frames import Load
from runtime.kernels import compile as kernel_compile
from runtime.kernels import cores, isa, jit
from runtime.kernels.kept import KINDS
from runtime.kernels.leaves import Leaves
from runtime.measure import disk, memory
from runtime.measure.rates import Rates, average, rates
from runtime.measure.stage import Stage
from runtime.measure.subject import options
from runtime.quants import BY_NAME, LeafType
from runtime.weights import Progress

log = logging.getLogger(__name__)

SECONDS = 0.05  # of each single measurement of a kernel
STEPS = 4  # that progress is reported of
MOST_ROUNDS, ALL_SECONDS = 4, 9.0  # of all measurements of kernels, as many as there is time for
NEAR = "cache", "cache_two", "cache_four"  # rates of weights in a core's own cache


def machine(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Arguments: types (of weights, names), states (whether of recurrent layers too), cache_bytes (of the last cache),
    free_bytes, disk (a large file, or empty), folder (of models), gpu; shapes that are placed on a card, where layers are then
    timed too (see `card_plan.placed`), with files in the folder `scratch`; and those of `subject.options`."""
    leaves, kind = Leaves(), KINDS[options(arguments)["kv_cache_type"]]
    types = [name for name in arguments["types"] if isinstance(BY_NAME.get(name), LeafType)]
    states = bool(arguments.get("states"))
    modules = *(kernel_compile.RECURRENT_MODULES if states else kernel_compile.DRIVER_MODULES), "probes"
    kernel_compile.ahead(leaves, types, progress, modules, strips.woven(types, leaves.strip_rows), kind)
    threads = cores.physical()
    progress("filling memory", 0, STEPS)
    buffer = memory.filled(memory.size_beyond(arguments["cache_bytes"], arguments["free_bytes"]))
    one, all_ = (Stage(leaves, count, kind) for count in (1, threads))
    try:
        progress("timing memory and kernels", 1, STEPS)
        found: dict[str, Any] = {
            "isa": jit.TIER.name,
            "isa_executed": list(isa.probe(jit.FOLDER)),
            "architectures": sorted({*models.ARCHITECTURES, *published.ARCHITECTURES}),
            "threads": threads,
            "thread_bytes": THREAD_BYTES,
            "clock": memory.clock(one),
            "kept_share": one.kept_share,
        }
        found |= _rounds(one, all_, buffer, types, arguments["cache_bytes"], states=states)
        progress("reading the disk", 2, STEPS)
        large = disk.read_speed(arguments["disk"]) if arguments["disk"] else None
        found["disk"] = large or disk.folder_speed(arguments["folder"])
        found["gpu"] = _gpu(all_, buffer, arguments, progress) if arguments["gpu"] and wants_gpu(1, False, 0) else None
        return found
    finally:
        one.close()
        all_.close()


def _rounds(one: Stage, all_: Stage, buffer: memory.Bytes, types: list[str], cache_bytes: int, *, states: bool) -> dict[str, Any]:
    """Memory and kernels by one core and by all, in turns: means, and bytes a second that each round read (`reads`)."""
    reads: list[tuple[float, float]] = []
    rounds: list[tuple[Rates, Rates]] = []
    begin = time.perf_counter()
    while not rounds or (len(rounds) < MOST_ROUNDS and (time.perf_counter() - begin) * (1 + 1 / len(rounds)) < ALL_SECONDS):
        reads.append((memory.read_speed(one, buffer), memory.read_speed(all_, buffer)))
        alone, together = (rates(stage, buffer, types, cache_bytes, SECONDS, states=states) for stage in (one, all_))
        rounds.append((alone, together))
    single, every = (dataclasses.asdict(average(several)) for several in zip(*rounds, strict=True))
    for name, rate in every["types"].items():  # cores share nothing there, and barriers would blur so short a time
        alone = single["types"][name]
        rate |= {far: min(seconds, alone[far]) for far, seconds in rate.items()}  # all are no slower than one, unless disturbed
        rate |= {near: alone[near] / all_.threads for near in NEAR}
    read_one, read_all = (statistics.harmonic_mean(speeds) for speeds in zip(*reads, strict=True))
    return {"read_one": read_one, "read_all": read_all, "reads": reads, "rates_one": single, "rates": every}


def _gpu(stage: Stage, buffer: memory.Bytes, arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    cards.keep_to(None)
    from runtime.measure import card_plan, card_rates, gpu  # torch takes seconds to import

    found, told = gpu.measure(stage, buffer), options(arguments)
    found["rates"], found["placements"], found["pcie"] = None, [], told["pcie"]
    if shapes := arguments.get("shapes", ()):
        try:
            found["rates"] = card_rates.rates(arguments["cache_bytes"], arguments.get("scratch", ""), progress)
        except (ModelError, OSError) as error:
            log.warning("no layers were timed on the card: %s", error)
        shapes = [shape | {"cache_bytes": int(shape["cache_bytes"] * stage.kept_share)} for shape in shapes]
        free = max(0, found["memory_free"] - told["gpu_overhead"])
        vram = min(free, told["vram"] or free)
        asked = Load("", num_parallel=0, num_batch=0, num_gpu=told["num_gpu"], num_cpu_moe=told["num_cpu_moe"])
        found["placements"] = [card_plan.placed(shape, vram, asked) for shape in shapes]
    return found
