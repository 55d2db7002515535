"""The job `machine`: what this machine really executes and how fast it is, without a model."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

from runtime import models, published
from runtime.core import ModelError
from runtime.execute import cards, strips
from runtime.execute.cpu import THREAD_BYTES
from runtime.execute.placement import wants_gpu
from runtime.frames import CALM, Load
from runtime.kernels import cache, cores, isa, jit
from runtime.kernels import compile as kernel_compile
from runtime.kernels.kept import KINDS, Kept
from runtime.kernels.leaves import COLUMNS, Leaves
from runtime.measure import disk, memory
from runtime.measure.others import Others
from runtime.measure.rates import Rates, middle, products_alone, rates
from runtime.measure.stage import Stage
from runtime.measure.subject import options
from runtime.quants import BY_NAME, LeafType
from runtime.weights import Progress

log = logging.getLogger(__name__)

SECONDS = 0.012  # of each single measurement of a kernel
STEPS = 4  # that progress is reported of
MOST_ROUNDS, ROUNDS_SECONDS = 4, 8.0  # of all measurements of kernels, as many as there is time for
ALL_SECONDS = 13.0  # until these end, where compiling kernels has taken some of it; one round there is always
NEAR = "cache", "cache_two", "cache_four", "cache_eight", "cache_sixteen"  # rates of weights in a core's own cache
PRODUCTS = re.compile(r"pool$|probes\.|matmul\.|rows\.(pack|add)|strip\.|dot\.|unpack\.|quantize\.")
UNTIMED = re.compile(r"interleave\.|reshape\.|row\.|dequantize_row\.|rows\.embed|router\.plan|matmul\.experts")


def machine(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Arguments: types (of weights, names), states (whether of recurrent layers too), cache_bytes (of the last cache),
    free_bytes, disk (a large file, or empty), folder (of models), gpu; shapes of models, without which only products are timed,
    and which are placed on a card, where layers are then timed too (see `card_plan.placed`), of the two `usual_types` of weights
    and with files in the folder `scratch`; and those of `subject.options`."""
    begin = time.perf_counter()
    leaves, kind = Leaves(), KINDS[options(arguments)["kv_cache_type"]]
    types = [name for name in arguments["types"] if isinstance(BY_NAME.get(name), LeafType)]
    steps, states = bool(arguments.get("shapes")), bool(arguments.get("states"))
    kernel_compile.keep(leaves, kernels(leaves, types, kind, steps=steps, states=states), progress)
    threads = cores.physical()
    progress("filling memory", 0, STEPS)
    buffer = memory.filled(memory.size_beyond(arguments["cache_bytes"], arguments["free_bytes"]))
    one = Stage(leaves, 1, kind)
    all_ = Stage(leaves, threads, kind) if threads > 1 else one
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
            "keeps_kernels": cache.keeps(leaves.cache.folder),
        }
        timed = functools.partial(rates, states=states) if steps else products_alone
        measure = functools.partial(_round, one, all_, buffer, types, arguments["cache_bytes"], timed)
        found |= _together(_rounds(measure, min(begin + ALL_SECONDS, time.perf_counter() + ROUNDS_SECONDS)), threads)
        progress("reading the disk", 2, STEPS)
        large = disk.read_speed(arguments["disk"]) if arguments["disk"] else None
        found["disk"] = large or disk.folder_speed(arguments["folder"])
        found["gpu"] = _gpu(all_, buffer, arguments, progress) if arguments["gpu"] and wants_gpu(1, False, 0) else None
        return found
    finally:
        for stage in {one, all_}:
            stage.close()


def kernels(leaves: Leaves, types: list[str], kind: Kept, *, steps: bool, states: bool) -> list[str]:
    """Names of those that are timed: compiling all that models need would take much longer. `steps`: all that steps of models are
    made of, not only products."""
    woven = strips.woven(types, leaves.strip_rows)
    modules = kernel_compile.RECURRENT_MODULES if states else kernel_compile.DRIVER_MODULES
    names = kernel_compile.names(leaves.tier, types, (*modules, "probes"), woven, kind)
    others = {f"dot.{name}.{count}" for name in woven for count in COLUMNS}
    timed = [name for name in names if name not in others and not UNTIMED.match(name)]
    return timed if steps else [name for name in timed if PRODUCTS.match(name)]


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """Everything measured once, one after the other."""

    reads: tuple[float, float]  # bytes a second from memory, by one thread and by all
    alone: Rates
    together: Rates
    others: float | None  # cores that other programs had meanwhile


def _round(
    one: Stage, all_: Stage, buffer: memory.Bytes, types: list[str], cache_bytes: int, timed: Callable[..., Rates]
) -> Round:
    """By one core and by all, which may be the same. All read no less than one: the others may stand idle."""
    others = Others()
    reads = [memory.read_speed(stage, buffer) for stage in dict.fromkeys((one, all_))]
    found = [timed(stage, buffer, types, cache_bytes, SECONDS) for stage in dict.fromkeys((one, all_))]
    return Round((reads[0], max(reads)), found[0], found[-1], others.cores())


def _rounds(measure: Callable[[], Round], end: float) -> list[Round]:
    """As many as are over by `end`."""
    rounds: list[Round] = []
    begin = time.perf_counter()
    while not rounds or (len(rounds) < MOST_ROUNDS and time.perf_counter() + (time.perf_counter() - begin) / len(rounds) < end):
        rounds.append(measure())
    return rounds


def calm(rounds: list[Round]) -> list[Round]:
    """Those in which others took hardly more of the CPUs than in the calmest one."""
    least = min(found.others or 0.0 for found in rounds)
    return [found for found in rounds if (found.others or 0.0) <= least + CALM]


def _together(measured: list[Round], threads: int) -> dict[str, Any]:
    """Medians over calm rounds, and what each of these read (`reads`)."""
    rounds = calm(measured)
    single, every = (dataclasses.asdict(middle(found)) for found in zip(*((r.alone, r.together) for r in rounds), strict=True))
    for name, rate in every["types"].items():  # cores share nothing there, and barriers would blur so short a time
        by_one = single["types"][name]
        rate |= {far: min(seconds, by_one[far]) for far, seconds in rate.items()}  # all are no slower than one, unless disturbed
        rate |= {near: by_one[near] / threads for near in NEAR}
    every["output_prompt"] = single["output_prompt"] / threads
    reads = [found.reads for found in rounds]
    read_one, read_all = (statistics.median(speeds) for speeds in zip(*reads, strict=True))
    told = [found.others for found in rounds if found.others is not None]
    others = statistics.fmean(told) if told else None
    return {"read_one": read_one, "read_all": read_all, "reads": reads, "others": others, "rates_one": single, "rates": every}


def _gpu(stage: Stage, buffer: memory.Bytes, arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    cards.keep_to(None)
    from runtime.measure import card_plan, card_rates, gpu  # torch takes seconds to import

    found, told = gpu.measure(stage, buffer), options(arguments)
    found["rates"], found["placements"], found["pcie"] = None, [], told["pcie"]
    if shapes := arguments.get("shapes", ()):
        usual, better = arguments["usual_types"]
        try:
            found["rates"] = card_rates.rates(usual, better, arguments["cache_bytes"], arguments["scratch"], progress)
        except (ModelError, OSError) as error:
            log.warning("no layers were timed on the card: %s", error)
        shapes = [shape | {"cache_bytes": int(shape["cache_bytes"] * stage.kept_share)} for shape in shapes]
        free = max(0, found["memory_free"] - told["gpu_overhead"])
        vram = min(free, told["vram"] or free)
        asked = Load("", num_parallel=0, num_batch=0, num_gpu=told["num_gpu"], num_cpu_moe=told["num_cpu_moe"])
        found["placements"] = [card_plan.placed(shape, vram, asked) for shape in shapes]
    return found
