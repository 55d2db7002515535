"""What others on a machine cost: a worker whose core is shared with busy loops, and a second model that decodes meanwhile.

    python benchmarks/contention.py MODEL.gguf [--threads 2] [--seconds 3] [--rounds 5]

`slowed`: so many threads decode, each on a core of its own, and two busy loops are pinned to the second core, so that its worker
is three times slower: of two threads a third of the capacity is gone. `two`: two processes with the model, each with as many
threads as there are cores, decode at the same time; their tokens a second together, beside those of one alone. Both sides of each
trial alternate.
What an idle server costs is in serve.py.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from machine import heading

from runtime.core import BLOCK_TOKENS, Batch
from runtime.execute.cpu import CpuExecutor, load

LENGTH = 256  # tokens of the text, which starts anew then
SETTLE = 1.0  # seconds before the clock is read


def opened(path: Path, threads: int) -> CpuExecutor:
    return load(
        path,
        num_ctx=LENGTH,
        num_parallel=1,
        num_batch=64,
        num_thread=threads,
        kv_cache_type="f16",
        progress=lambda phase, done, total: None,
    )


def decode(executor: CpuExecutor, seconds: float) -> float:
    """Tokens a second, one at a time."""
    table, zero = np.arange(LENGTH // BLOCK_TOKENS, dtype=np.int32)[None], np.zeros(1, np.int32)
    begin, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begin) < seconds:
        position = np.array([count % LENGTH], np.int32)
        executor.forward(Batch(zero, position, zero, table, zero)).argmax()
        count += 1
    return count / spent


@contextlib.contextmanager
def busy(core: int, loops: int) -> Iterator[None]:
    """So many endless loops on a core."""
    code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(loops)]
    time.sleep(0.3)
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def spread() -> list[int]:
    """The CPUs that there are, one of each physical core first."""
    seen: Counter[str] = Counter()
    rounds: dict[int, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        core = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        rounds[cpu] = seen[core]
        seen[core] += 1
    return sorted(rounds, key=lambda cpu: (rounds[cpu], cpu))


def pin(cpus: list[int]) -> None:
    """Thread n of the pool to the nth of these."""
    for thread in threading.enumerate():
        if thread.native_id is not None:
            number = int(thread.name.removeprefix("kernel-")) if thread.name.startswith("kernel-") else 0
            os.sched_setaffinity(thread.native_id, {cpus[number]})


def slowed(path: Path, threads: int, seconds: float, rounds: int) -> None:
    """Without the loops and with them."""
    executor, cpus = opened(path, threads), spread()
    everywhere, second = os.sched_getaffinity(0), cpus[1]
    pin(cpus)
    decode(executor, 0.5)
    free, shared = [], []
    for _ in range(rounds):
        decode(executor, SETTLE)
        free.append(decode(executor, seconds))
        with busy(second, 2):
            decode(executor, SETTLE)
            shared.append(decode(executor, seconds))
    executor.close()
    os.sched_setaffinity(0, everywhere)
    less = opened(path, threads - 1)
    pin([cpus[0], *cpus[2:]])
    decode(less, 0.5)
    without = decode(less, seconds)
    less.close()
    os.sched_setaffinity(0, everywhere)
    loss, share = 1 - statistics.median(shared) / statistics.median(free), 2 / 3 / threads
    print(f"slowed: {threads} threads {_span(free)} tokens/s, beside two busy loops on a core {_span(shared)}: {loss:.0%} lost")
    print(f"        ({share:.0%} of the capacity is gone; a thread less and no loops: {without:.1f})", flush=True)


def two(path: Path, seconds: float, rounds: int) -> None:
    """One process, and two at once."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    children = [context.Process(target=_runner, args=(there, path), daemon=True) for _, there in pipes]
    for child in children:
        child.start()
    ours = [here for here, _ in pipes]
    for pipe in ours:
        pipe.recv()
    alone, together = [], []
    for number in range(rounds):
        alone.append(_ask(ours[number % 2 : number % 2 + 1], seconds))
        together.append(_ask(ours, seconds))
    for child in children:
        child.kill()
        child.join()
    share = statistics.median(together) / statistics.median(alone)
    print(f"two:    one process {_span(alone)} tokens/s, two at once together {_span(together)}: {share:.0%}", flush=True)


def _ask(pipes: list[Connection], seconds: float) -> float:
    for pipe in pipes:
        pipe.send(seconds)
    return sum(pipe.recv() for pipe in pipes)


def _runner(pipe: Connection, path: Path) -> None:
    executor = opened(path, len(os.sched_getaffinity(0)))
    decode(executor, 0.5)
    pipe.send(0.0)
    while True:
        pipe.send(decode(executor, pipe.recv()))


def _span(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slowed", action="store_true", help="that trial alone")
    arguments = parser.parse_args()
    print(heading(), flush=True)
    for threads in arguments.threads:
        slowed(arguments.model, threads, arguments.seconds, arguments.rounds)
    if not arguments.slowed:
        two(arguments.model, arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
