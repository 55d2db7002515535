"""Speed of the dot leaves of one core: weight bytes per second in cache and from memory, and integer work per second.

    python benchmarks/leaves.py [--types Q4_K Q6_K] [--columns 1 8] [--width 2048] [--memory 512]

All leaves take turns, several rounds; medians are printed. MOELLAMA_ISA chooses the tier.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.kernels import jit
from runtime.kernels.leaves import COLUMNS, Leaves, activation_bytes
from runtime.quants import BY_NAME, LeafType

CACHED = 384 << 10  # bytes of weights that stay in a core's cache
ROUNDS = 9
TARGET_SECONDS = 0.01  # of one measurement in cache

DOT = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)


class Case:
    """One leaf with its buffers."""

    def __init__(self, leaves: Leaves, kind: LeafType, columns: int, width: int, size: int) -> None:
        self.kind, self.columns = kind, columns
        self.blocks = width // kind.block_size
        self.stride = self.blocks * kind.block_bytes
        self.rows = max(1, size // self.stride)
        rng = np.random.default_rng(0)
        some = rng.integers(0, 256, min(CACHED, self.rows * self.stride), np.uint8)
        some &= 0x3F  # no infinities among scales and floats
        self.weights = np.resize(some, self.rows * self.stride)
        inputs = _aligned(columns, activation_bytes(kind.activation, width))
        outputs = np.zeros((columns, self.rows), np.float32)
        self.keep = (inputs, outputs)
        self.inputs = np.array([row.ctypes.data for row in inputs], np.int64)
        self.outputs = np.array([row.ctypes.data for row in outputs], np.int64)
        leaf = DOT(leaves.dot(kind.name, columns))
        arguments = (self.weights.ctypes.data, self.stride, self.rows, self.inputs.ctypes.data, self.outputs.ctypes.data)
        self.run = functools.partial(leaf, *arguments, self.blocks)
        self.overhead = functools.partial(leaf, *arguments[:2], 0, *arguments[3:], self.blocks)  # the call alone, no rows

    @property
    def nbytes(self) -> int:
        return self.rows * self.stride

    @property
    def operations(self) -> int:
        return 2 * self.rows * self.blocks * self.kind.block_size * self.columns


def _aligned(rows: int, row_bytes: int) -> npt.NDArray[np.uint8]:
    """Zeros whose rows start on cache lines, as the executor's do."""
    stride = -(-row_bytes // 64) * 64
    raw = np.zeros(rows * stride + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + rows * stride].reshape(rows, stride)


def seconds(run: Callable[[], None], repeats: int) -> float:
    started = time.thread_time()
    for _ in range(repeats):
        run()
    return (time.thread_time() - started) / repeats


def medians(cases: list[Case], target: float) -> list[float]:
    """Median seconds a run of each case, all cases in turn."""
    repeats = [max(1, round(target / seconds(case.run, 2))) for case in cases]
    times: list[list[float]] = [[] for _ in cases]
    for _ in range(ROUNDS):
        for slot, case, count in zip(times, cases, repeats, strict=True):
            slot.append(seconds(case.run, count) - seconds(case.overhead, count))
    return [statistics.median(slot) for slot in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [kind.name for kind in BY_NAME.values() if isinstance(kind, LeafType)]
    parser.add_argument("--types", nargs="+", default=known, choices=known)
    parser.add_argument("--columns", nargs="+", type=int, default=list(COLUMNS))
    parser.add_argument("--width", type=int, default=2048, help="values a row")
    parser.add_argument("--memory", type=int, default=512, help="MB of weights for the figures from memory, 0 for none")
    options = parser.parse_args()
    print(f"{_cpu()}; tier {jit.TIER.name}; commit {_commit()}; {' '.join(sys.argv)}")
    leaves = Leaves()
    kinds = [kind for kind in BY_NAME.values() if isinstance(kind, LeafType) and kind.name in options.types]
    plan = [(kind, columns) for kind in kinds for columns in options.columns]
    cached = [Case(leaves, kind, columns, options.width, CACHED) for kind, columns in plan]
    memory = [0.0] * len(plan)
    times = medians(cached, TARGET_SECONDS)
    if options.memory:
        # one case at a time holds the big matrix
        memory = [medians([Case(leaves, *entry, options.width, options.memory << 20)], 0.0)[0] for entry in plan]
    print(f"{'type':6s} {'columns':>7s} {'ns/block':>9s} {'cache GB/s':>11s} {'memory GB/s':>12s} {'Gop/s':>7s}")
    for case, cache_time, memory_time in zip(cached, times, memory, strict=True):
        block = cache_time / case.rows / case.blocks * 1e9
        far = f"{(options.memory << 20) / memory_time / 1e9:12.1f}" if memory_time else f"{'-':>12s}"
        speed, work = case.nbytes / cache_time / 1e9, case.operations / cache_time / 1e9
        print(f"{case.kind.name:6s} {case.columns:7d} {block:9.2f} {speed:11.1f} {far} {work:7.0f}")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
