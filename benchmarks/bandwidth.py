"""How fast this machine reads memory: the limit of decoding. A loop in C (where there is a compiler) and one by numba.

    python benchmarks/bandwidth.py [--threads 1 2] [--megabytes 512]

Every thread stays alive and reads a buffer of its own; the best of five passes of the faster loop counts.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from runtime.kernels.jit import njit

PASSES = 5
C_LOOP = """
#include <stddef.h>
#include <stdint.h>
uint64_t read_all(const uint64_t *p, size_t n) {
  uint64_t a = 0;
  for (size_t i = 0; i < n; i += 32) {
    __builtin_prefetch((const char *)(p + i) + 4096);
    __builtin_prefetch((const char *)(p + i) + 4160);
    __builtin_prefetch((const char *)(p + i) + 4224);
    __builtin_prefetch((const char *)(p + i) + 4288);
    for (size_t j = 0; j < 32; j++) a ^= p[i + j];
  }
  return a;
}
"""
Loop = Callable[[np.ndarray], object]


@njit(nogil=True)
def _numba_loop(values: np.ndarray) -> int:
    total = 0
    for value in values:
        total ^= value
    return total


def _c_loop(folder: str) -> Loop | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source, library = Path(folder, "read.c"), Path(folder, "read.so")
    source.write_text(C_LOOP)
    command = [compiler, "-O3", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC", source, "-o", library]
    if subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode != 0:
        return None
    function = ctypes.CDLL(str(library)).read_all
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return lambda values: function(values.ctypes.data, len(values))


def _buffer(megabytes: int) -> np.ndarray:
    """Memory in huge pages, all of it touched."""
    memory = mmap.mmap(-1, megabytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    values = np.frombuffer(memory, np.int64)
    values[:] = 1
    return values


def _best(loop: Loop, buffers: Sequence[np.ndarray]) -> float:
    """GB/s of all threads together, the best pass."""
    barrier, marks = threading.Barrier(len(buffers)), []

    def work(values: np.ndarray) -> None:
        loop(values[:4096])
        for number in range(PASSES):
            barrier.wait()
            begin = time.perf_counter()
            loop(values)
            marks.append((number, begin, time.perf_counter()))

    threads = [threading.Thread(target=work, args=(values,)) for values in buffers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = [[mark for mark in marks if mark[0] == number] for number in range(PASSES)]
    seconds = min(max(end for *_, end in span) - min(begin for _, begin, _ in span) for span in spans)
    return sum(values.nbytes for values in buffers) / seconds / 1e9


def read_speeds(threads: Sequence[int], megabytes: int = 512) -> dict[int, float]:
    """GB/s by number of threads."""
    buffers = [_buffer(megabytes) for _ in range(max(threads))]
    with tempfile.TemporaryDirectory() as folder:
        loops = [loop for loop in (_numba_loop, _c_loop(folder)) if loop]
        return {count: max(_best(loop, buffers[:count]) for loop in loops) for count in threads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--megabytes", type=int, default=512)
    options = parser.parse_args()
    for count, speed in read_speeds(options.threads, options.megabytes).items():
        print(f"{count} thread(s): {speed:.1f} GB/s")


if __name__ == "__main__":
    main()
