"""The job `machine`: what this machine really executes and how fast it is, without a model."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from runtime import models, published
from runtime.core import ModelError
from runtime.execute import strips
from runtime.execute.cpu import THREAD_BYTES
from runtime.execute.placement import wants_gpu
from runtime.frames import Load
from runtime.kernels import compile as kernel_compile
from runtime.kernels import cores, isa, jit
from runtime.kernels.leaves import Leaves
from runtime.measure import disk, memory
from runtime.measure.rates import rates
from runtime.measure.stage import Stage
from runtime.measure.subject import options
from runtime.quants import BY_NAME, LeafType
from runtime.weights import Progress

log = logging.getLogger(__name__)

SECONDS = 0.05  # of each single measurement of a kernel
STEPS = 5  # that progress is reported of
NEAR = "cache", "cache_two", "cache_four"  # rates of weights in a core's own cache


def machine(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Arguments: types (of weights, names), states (whether of recurrent layers too), cache_bytes (of the last cache),
    free_bytes, disk (a large file, or empty), folder (of models), gpu; shapes that are placed on a card, where layers are then
    timed too (see `card_plan.placed`); and those of `subject.options`."""
    leaves = Leaves()
    types = [name for name in arguments["types"] if isinstance(BY_NAME.get(name), LeafType)]
    states = bool(arguments.get("states"))
    modules = *(kernel_compile.RECURRENT_MODULES if states else kernel_compile.DRIVER_MODULES), "probes"
    kernel_compile.ahead(leaves, types, progress, modules, strips.woven(types, leaves.strip_rows))
    threads = cores.physical()
    progress("filling memory", 0, STEPS)
    buffer = memory.filled(memory.size_beyond(arguments["cache_bytes"], arguments["free_bytes"]))
    one, all_ = Stage(leaves, 1), Stage(leaves, threads)
    try:
        progress("reading memory", 1, STEPS)
        found: dict[str, Any] = {
            "isa": jit.TIER.name,
            "isa_executed": list(isa.probe(jit.FOLDER)),
            "architectures": sorted({*models.ARCHITECTURES, *published.ARCHITECTURES}),
            "threads": threads,
            "thread_bytes": THREAD_BYTES,
            "clock": memory.clock(one),
            "read_one": memory.read_speed(one, buffer),
            "read_all": memory.read_speed(all_, buffer),
        }
        asked = buffer, types, arguments["cache_bytes"], SECONDS
        progress("timing kernels on one core", 2, STEPS)
        found["rates_one"] = dataclasses.asdict(rates(one, *asked, states=states))
        progress("timing kernels on all cores", 3, STEPS)
        found["rates"] = dataclasses.asdict(rates(all_, *asked, states=states))
        for name, rate in found["rates"]["types"].items():  # cores share nothing there, and barriers would blur so short a time
            rate |= {near: found["rates_one"]["types"][name][near] / threads for near in NEAR}
        progress("reading the disk", 4, STEPS)
        large = disk.read_speed(arguments["disk"]) if arguments["disk"] else None
        found["disk"] = large or disk.folder_speed(arguments["folder"])
        found["gpu"] = _gpu(all_, buffer, arguments, progress) if arguments["gpu"] and wants_gpu(1, False, 0) else None
        return found
    finally:
        one.close()
        all_.close()


def _gpu(stage: Stage, buffer: memory.Bytes, arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    from runtime.measure import card_plan, card_rates, gpu  # torch takes seconds to import

    found, told = gpu.measure(stage, buffer), options(arguments)
    found["rates"], found["placements"] = None, []
    if shapes := arguments.get("shapes", ()):
        try:
            found["rates"] = card_rates.rates(arguments["cache_bytes"], progress)
        except (ModelError, OSError) as error:
            log.warning("no layers were timed on the card: %s", error)
        free = max(0, found["memory_free"] - told["gpu_overhead"])
        vram = min(free, told["vram"] or free)
        asked = Load("", num_parallel=0, num_batch=0, num_gpu=told["num_gpu"], num_cpu_moe=told["num_cpu_moe"])
        found["placements"] = [card_plan.placed(shape, vram, asked) for shape in shapes]
    return found
