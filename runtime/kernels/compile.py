"""Compile ahead: the kernels that a model needs, by worker processes, into the disk cache that this process then loads from.

`python -m runtime.kernels.compile` is such a worker: it reads names of kernels from stdin, a line each, compiles them and
answers each with its name.
"""

from __future__ import annotations

import importlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from runtime import child
from runtime.kernels import cores, team
from runtime.kernels.driver import Driver
from runtime.kernels.kept import F16, Kept
from runtime.kernels.leaves import LEARN, Leaves, mixes, needed
from runtime.kernels.pool import Pool

Progress = Callable[[str, int, int], None]

DRIVER_MODULES = ("attention", "interleave", "matmul", "reshape", "rows", "router")  # of models that make text
RECURRENT_MODULES = (*DRIVER_MODULES, "delta")  # of those with layers that keep a state
OTHER_MODULES = ("delta", "encode", "probes")
POOL = "pool"
CHOOSING = ("draws", "masked")
"""Modules with the loops by which models that make text choose their tokens."""
PHASE = "compiling kernels"
FEW = 2  # kernels that are compiled sooner than a worker starts


def ahead(
    leaves: Leaves,
    quants: Iterable[str],
    progress: Progress,
    modules: Iterable[str] = DRIVER_MODULES,
    strips: Iterable[str] = (),
    kind: Kept = F16,
) -> None:
    """Have the kernels of a model with these weight types (`strips`: of matrices in strips), modules of drivers and kind of keys
    and values in the disk cache. Without a cache it does nothing: each kernel is then compiled when it is first asked for."""
    keep(leaves, names(leaves.tier, quants, modules, strips, kind), progress)


def names(
    tier: str,
    quants: Iterable[str],
    modules: Iterable[str] = DRIVER_MODULES,
    strips: Iterable[str] = (),
    kind: Kept = F16,
) -> list[str]:
    """The kernels that `ahead` means: the slowest to compile first, so that no worker ends long after the others."""
    modules = tuple(modules)
    states = [LEARN] if "delta" in modules else []
    return [POOL, *drivers(modules), *reversed(mixes(kind) + states + needed(quants, strips, tier))]


def modules_for(tensors: Iterable[str]) -> tuple[str, ...]:
    """The modules of drivers that layers with tensors of these names run on."""
    return RECURRENT_MODULES if any(".ssm_" in name for name in tensors) else DRIVER_MODULES


def keep(leaves: Leaves, wanted: Iterable[str], progress: Progress) -> int:
    """Have kernels in the disk cache, where there is one. Returns how many were not yet there."""
    folder = leaves.cache.folder
    if folder is None:
        return 0
    ready = folder / f"ready-{leaves.tier}"
    there = _read(ready)
    missing = [name for name in wanted if name not in there]
    if len(missing) > FEW:
        _by_workers(missing, ready, progress)
    else:
        for name in missing:
            compile_one(name, leaves)
            _append(ready, name)
    return len(missing)


def compile_one(name: str, leaves: Leaves) -> None:
    """Compile the kernel of that name, or load it from the cache."""
    if name == POOL:
        pool = Pool(2)
        pool.run(np.empty((0, team.COLUMNS), np.int64), np.empty((0, 8), np.int64))
        pool.close()
    elif name in CHOOSING:
        importlib.import_module(f"runtime.kernels.{name}").compile_all()
    elif driver := drivers().get(name):
        driver.address(leaves.cache)
    else:
        leaves.compile(name)


def drivers(modules: Iterable[str] = DRIVER_MODULES + OTHER_MODULES) -> dict[str, Driver]:
    """The drivers of some modules, or all, by their names, `module.function`."""
    imported = [importlib.import_module(f"runtime.kernels.{name}") for name in modules]
    found = [value for module in imported for value in vars(module).values() if isinstance(value, Driver)]
    return {driver.name: driver for driver in found}


def _by_workers(missing: list[str], ready: Path, progress: Progress) -> None:
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in missing:
        waiting.put(name)
    done: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    workers = [threading.Thread(target=_feed, args=(waiting, done)) for _ in range(min(cores.physical(), 8, len(missing)))]
    for worker in workers:
        worker.start()
    running, count = len(workers), 0
    while running:
        finished = done.get()
        if finished is None:
            running -= 1
            continue
        count += 1
        _append(ready, finished)
        progress(PHASE, count, len(missing))
    for worker in workers:
        worker.join()


def _feed(waiting: queue.SimpleQueue[str], done: queue.SimpleQueue[str | None]) -> None:
    """Hand names to one worker process until none is left, or until it dies: then this process compiles what is missing."""
    command, pipe = child.command("runtime.kernels.compile"), subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=child.environment()) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            while True:
                worker.stdin.write(waiting.get_nowait() + "\n")
                worker.stdin.flush()
                answer = worker.stdout.readline()
                if not answer:
                    break
                done.put(answer.strip())
        except (queue.Empty, BrokenPipeError):
            pass
        finally:
            done.put(None)


def _read(ready: Path) -> set[str]:
    try:
        return set(ready.read_text().split())
    except OSError:
        return set()


def _append(ready: Path, name: str) -> None:
    try:
        with ready.open("a") as file:
            file.write(f"{name}\n")
    except OSError:  # the folder went away: kernels are compiled again next time
        return


def main() -> None:
    leaves = Leaves()
    for line in sys.stdin:
        name = line.strip()
        compile_one(name, leaves)
        print(name, flush=True)


if __name__ == "__main__":
    main()
