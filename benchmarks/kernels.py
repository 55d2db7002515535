"""Speed of the products of one core, type by type: cycles a block and GB/s of weights, in cache and from memory.

    python benchmarks/kernels.py [--types Q4_K Q6_K] [--columns 1 8] [--rows 15] [--memory 512] [--ggml FOLDER]

Beside each stands llama.cpp's own product of the same shape, the fastest of its row by row, its repacked form and its graph of
one product (FOLDER holds its libggml-cpu.so), and for memory a plain read loop. All cases take turns, several rounds; medians
are printed. MOELLAMA_ISA chooses the tier.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bandwidth import read_speeds
from ggml import Ggml, Run, repeated

from runtime.kernels import jit
from runtime.kernels.jit import njit
from runtime.kernels.leaves import COLUMNS, Leaves, activation_bytes
from runtime.quants import BY_NAME, LeafType
from runtime.quants.strips import StripType

CACHED = 384 << 10  # bytes of weights that stay in a core's cache
ROUNDS = 9
TARGET_SECONDS = 0.005  # of one measurement in cache


class Matrix:
    """A matrix of one type, and what multiplies it."""

    def __init__(self, kind: LeafType, width: int, size: int, rows: int = 0) -> None:
        self.kind, self.width = kind, width
        self.blocks = width // kind.block_size
        self.stride = self.blocks * kind.block_bytes
        self.rows = rows or max(16, size // self.stride // 16 * 16)
        some = np.random.default_rng(0).integers(0, 256, min(CACHED, self.rows * self.stride), np.uint8)
        self.weights = _aligned(1, self.rows * self.stride)[0, : self.rows * self.stride]
        self.weights[:] = np.resize(some & 0x3F | 0x20, self.weights.shape)  # no infinities and nothing tiny among scales

    @property
    def nbytes(self) -> int:
        return self.rows * self.stride

    def in_strips(self, leaves: Leaves) -> int:
        """Rows that lie in strips in a model."""
        lanes = leaves.strip_rows if isinstance(self.kind, StripType) else 0
        return self.rows // lanes * lanes if lanes else 0

    def ours(self, leaves: Leaves, columns: int) -> Run:
        """The leaves that a model's matrix of this type gets: for strips, and for rows after the last."""
        inputs = _aligned(columns, activation_bytes(leaves.activation(self.kind.name), self.width))
        outputs = np.zeros((columns, self.rows), np.float32)
        kept: list[object] = [inputs, outputs, self.weights]
        calls: list[tuple[int, ...]] = []
        whole = self.in_strips(leaves)
        parts = ("strip", 0, whole), ("dot", whole, self.rows)
        for form, first, end in (part for part in parts if part[1] < part[2]):
            wide = max(count for count in leaves.columns(self.kind.name, form) if count <= columns)
            for column in range(0, columns, wide):
                some = slice(column, column + wide)
                arrays = inputs[some], outputs[some, first:]
                pointers = [np.array([row.ctypes.data for row in array], np.int64) for array in arrays]
                kept += pointers
                place, addresses = self.weights.ctypes.data + first * self.stride, [array.ctypes.data for array in pointers]
                arguments = (place, self.stride, end - first, *addresses, self.blocks, place)
                leaf = leaves.strip if form == "strip" else leaves.dot
                calls.append((leaf(self.kind.name, wide), *arguments))
        return functools.partial(_held, repeated(*calls), kept)


def _held(run: Run, keep: object, times: int) -> None:
    run(times)


def _aligned(rows: int, row_bytes: int) -> npt.NDArray[np.uint8]:
    """Zeros whose rows start on cache lines, as the executor's do."""
    stride = -(-row_bytes // 64) * 64
    raw = np.zeros(rows * stride + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + rows * stride].reshape(rows, stride)


def seconds(run: Run, repeats: int) -> float:
    started = time.thread_time()
    run(repeats)
    return (time.thread_time() - started) / repeats


def medians(runs: Sequence[Run], target: float) -> list[float]:
    """Median seconds of each, all in turn. The first call may compile, so it does not count for how often there are calls."""
    for run in runs:
        run(1)
    repeats = [max(1, round(target / seconds(run, 2))) for run in runs]
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for slot, run, count in zip(times, runs, repeats, strict=True):
            slot.append(seconds(run, count))
    return [statistics.median(slot) for slot in times]


@njit
def _chain(count: int) -> int:
    """A chain of dependent multiplications, three cycles each on every x86 of the last ten years."""
    x = count | 1
    for _ in range(count):
        x *= x
    return x


def gigahertz() -> float:
    """The clock of the core that this thread runs on."""
    count = 10_000_000
    _chain(1)
    return 3 * count / min(seconds(lambda times: _chain(times * count), 1) for _ in range(5)) / 1e9


def report(kind: LeafType, options: argparse.Namespace, leaves: Leaves, peer: Ggml | None, read: float) -> None:
    """One line for each number of columns."""
    cached = Matrix(kind, options.width, CACHED, options.rows)
    widths = options.columns
    place = (cached.weights, cached.stride, cached.rows, cached.width)
    theirs = [peer.products(kind.name, *place, columns) if peer else [] for columns in widths]
    times = iter(medians([*(cached.ours(leaves, columns) for columns in widths), *itertools.chain(*theirs)], TARGET_SECONDS))
    taken = list(itertools.islice(times, len(widths)))
    clock = gigahertz()
    memory = Matrix(kind, options.width, options.memory << 20) if options.memory else None
    far = medians([memory.ours(leaves, widths[0])], 0.0)[0] if memory else 0.0
    for number, (columns, ours, calls) in enumerate(zip(widths, taken, theirs, strict=True)):
        cycles = ours / (cached.rows * cached.blocks) * clock * 1e9
        line = f"{kind.name:8}{columns:3}{cycles:10.2f} cycles / {kind.block_size:3} values"
        line += f"{cached.nbytes / ours / 1e9:8.1f} GB/s {2 * cached.rows * cached.width * columns / ours / 1e9:6.0f} GOP/s"
        if calls:
            best = min(itertools.islice(times, len(calls)))
            line += f"   llama.cpp {cached.nbytes / best / 1e9:6.1f} GB/s {best / ours:6.2f}x"
        if number == 0 and memory:
            speed = memory.nbytes / far / 1e9
            line += f"   memory {speed:6.1f} GB/s, {speed / read:.2f} of a read loop"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [kind.name for kind in BY_NAME.values() if isinstance(kind, LeafType)]
    parser.add_argument("--types", nargs="+", default=known, choices=known)
    parser.add_argument("--columns", nargs="+", type=int, default=[1, 8], choices=COLUMNS)
    parser.add_argument("--width", type=int, default=2048, help="values a row")
    parser.add_argument("--rows", type=int, default=0, help="rows of the matrix in cache, instead of as many as fit")
    parser.add_argument("--memory", type=int, default=512, help="MB of weights for the figures from memory, 0 for none")
    parser.add_argument("--ggml", type=Path, help="folder of llama.cpp's libggml-cpu.so")
    options = parser.parse_args()
    read = read_speeds([1])[1] if options.memory else 0.0
    print(f"{_cpu()}; tier {jit.TIER.name}; {gigahertz():.2f} GHz; a read loop gets {read:.1f} GB/s; commit {_commit()}")
    print(" ".join(sys.argv), flush=True)
    peer = Ggml(options.ggml) if options.ggml else None
    leaves = Leaves()
    for name in options.types:
        kind = BY_NAME[name]
        assert isinstance(kind, LeafType)
        report(kind, options, leaves, peer, read)


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
