"""Compile ahead: the kernels that a model needs, by worker processes, into the disk cache that this process then loads from.

`python -m runtime.kernels.compile` is such a worker: it reads names of kernels from stdin, a line each, compiles them and
answers each with its name.
"""

from __future__ import annotations

import importlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from runtime.kernels import cores
from runtime.kernels.driver import Driver
from runtime.kernels.leaves import Leaves, mixes, needed
from runtime.kernels.pool import Pool

Progress = Callable[[str, int, int], None]

DRIVER_MODULES = ("attention", "interleave", "matmul", "rows", "router")  # of models that make text
OTHER_MODULES = ("encode", "probes")
POOL = "pool"
FEW = 2  # kernels that are compiled sooner than a worker starts


def ahead(
    leaves: Leaves,
    quants: Iterable[str],
    progress: Progress,
    modules: Iterable[str] = DRIVER_MODULES,
    strips: Iterable[str] = (),
) -> None:
    """Have the kernels of a model with these weight types (`strips`: of matrices in strips) and modules of drivers in the disk
    cache. Without a cache it does nothing: each kernel is then compiled when it is first asked for."""
    folder = leaves.cache.folder
    if folder is None:
        return
    ready = folder / f"ready-{leaves.tier}"
    there = _read(ready)
    missing = [name for name in _names(quants, strips, modules, leaves.tier) if name not in there]
    if len(missing) > FEW:
        _by_workers(missing, ready, progress)
        return
    for name in missing:
        compile_one(name, leaves)
        _append(ready, name)


def compile_one(name: str, leaves: Leaves) -> None:
    """Compile the kernel of that name, or load it from the cache."""
    if name == POOL:
        Pool(2).close()
    elif driver := drivers().get(name):
        driver.address(leaves.cache)
    else:
        leaves.compile(name)


def drivers(names: Iterable[str] = DRIVER_MODULES + OTHER_MODULES) -> dict[str, Driver]:
    """The drivers of some modules, or all, by their names, `module.function`."""
    modules = [importlib.import_module(f"runtime.kernels.{name}") for name in names]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Driver)]
    return {driver.name: driver for driver in found}


def _names(quants: Iterable[str], strips: Iterable[str], modules: Iterable[str], tier: str) -> list[str]:
    """The slowest to compile first, so that no worker ends long after the others."""
    return [POOL, *drivers(modules), *reversed(mixes() + needed(quants, strips, tier))]


def _by_workers(names: list[str], ready: Path, progress: Progress) -> None:
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    done: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    workers = [threading.Thread(target=_feed, args=(waiting, done)) for _ in range(min(cores.physical(), 8, len(names)))]
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
        progress("compiling kernels", count, len(names))
    for worker in workers:
        worker.join()


def _feed(waiting: queue.SimpleQueue[str], done: queue.SimpleQueue[str | None]) -> None:
    """Hand names to one worker process until none is left, or until it dies: then this process compiles what is missing."""
    command = [sys.executable, "-m", "runtime.kernels.compile"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            while True:
                child.stdin.write(waiting.get_nowait() + "\n")
                child.stdin.flush()
                answer = child.stdout.readline()
                if not answer:
                    break
                done.put(answer.strip())
        except (queue.Empty, BrokenPipeError):
            pass
        finally:
            done.put(None)


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


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
