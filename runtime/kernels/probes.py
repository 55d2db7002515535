"""Drivers that measure a machine and belong to no model: reading memory, and a chain of operations of known length."""

from __future__ import annotations

from runtime.kernels.desk import claim
from runtime.kernels.driver import driver
from runtime.kernels.memory import i64, prefetch, ticks

CHAIN_CYCLES = 4  # of a step of `chain`: a multiplication takes 3 cycles and an XOR 1, on every x86-64 core of ten years
_LINE = 8  # int64 in a cache line


@driver
def read(args: int, desk: int, thread: int, threads: int) -> None:
    """Read memory from end to end, each thread some pieces of it.

    Arguments: address, bytes, bytes a piece (a multiple of 64), prefetch bytes ahead (0: leave it to the CPU), sums (8 int64 a
    thread).
    """
    a = i64(args, 5)
    total = 0
    while True:
        first = claim(desk, 1) * a[2]
        if first >= a[1]:
            break
        start, lines = a[0] + first, min(a[2], a[1] - first) // 64
        if a[3] > 0:
            for line in range(lines):
                prefetch(start + 64 * line + a[3])
                x = i64(start + 64 * line, _LINE)
                for i in range(_LINE):
                    total += x[i]
        else:
            x = i64(start, _LINE * lines)
            for i in range(_LINE * lines):
                total += x[i]
    i64(a[4] + 64 * thread, 1)[0] = total


@driver
def chain(args: int, desk: int, thread: int, threads: int) -> None:
    """Steps that wait for one another, CHAIN_CYCLES each. Arguments: steps, out (int64)."""
    if claim(desk, 1) != 0:
        return
    a = i64(args, 2)
    x = ticks()  # nothing that the compiler knows
    for _ in range(a[0]):
        x = (x ^ 1442695040888963407) * 6364136223846793005
    i64(a[1], 1)[0] = x
