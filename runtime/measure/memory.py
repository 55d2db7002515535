"""What reading memory gives, in bytes a second: one core, all cores, and a buffer of any size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtime.kernels import probes
from runtime.measure.stage import Stage
from runtime.weights import aligned_array

Bytes = npt.NDArray[np.uint8]

SMALLEST = 16 << 20  # bytes of a buffer: every kernel finds enough rows there
PIECE = 4 << 20  # bytes that a thread reads at a time
AHEAD = (0, 4096)  # bytes; what the CPU's own prefetcher misses, the kernels ask for, so the better one is the limit


def read_speed(stage: Stage, memory: Bytes, seconds: float = 0.2) -> float:
    """Bytes a second that the stage's threads read from `memory`, again and again: the fastest of several passes."""
    sums = aligned_array((stage.threads, 8), np.int64)
    piece = min(PIECE, max(64, memory.nbytes // stage.threads // 64 * 64))
    speeds = []
    for ahead in AHEAD:
        arguments = np.array([memory.ctypes.data, memory.nbytes, piece, ahead, sums.ctypes.data], np.int64)
        speeds.append(memory.nbytes / stage.run_driver(probes.read, arguments, seconds / len(AHEAD)).fastest)
    return max(speeds)


def clock(stage: Stage) -> float:
    """Cycles a second of a busy core."""
    steps, out = 2_000_000, aligned_array((1,), np.int64)
    arguments = np.array([steps, out.ctypes.data], np.int64)
    return probes.CHAIN_CYCLES * steps / stage.run_driver(probes.chain, arguments, 0.02).fastest


def filled(nbytes: int) -> Bytes:
    """Bytes that are valid blocks of every type: as floats, and as scales of any kind, none is infinite, and none so small that
    the CPU takes longer for it."""
    memory = aligned_array((nbytes,), np.uint8)
    some = np.random.default_rng(0).integers(48, 64, 1 << 20, np.uint8)
    for start in range(0, nbytes, len(some)):
        memory[start : start + len(some)] = some[: min(len(some), nbytes - start)]
    return memory


def size_beyond(cache_bytes: int, free_bytes: int) -> int:
    """Bytes of a buffer that no cache holds, within reason. `free_bytes`: of memory; 0 where nobody knows."""
    wanted = max(256 << 20, 3 * cache_bytes)
    return max(SMALLEST, min(wanted, 2 << 30, free_bytes // 4 or wanted) // 4096 * 4096)
