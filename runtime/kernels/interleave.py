"""Drivers of strips (see `runtime.quants.strips`) beside the products: lay matrices out, and read single rows again."""

from __future__ import annotations

from runtime.kernels.desk import claim
from runtime.kernels.driver import driver, row_driver
from runtime.kernels.memory import call3, call4, i32, i64


@driver
def interleave(args: int, desk: int, thread: int, threads: int) -> None:
    """Turn the rows of a matrix into strips, in place.

    Arguments: address, bytes a row, blocks a row, rows a strip, strips, leaf, scratch, bytes of scratch a thread (a strip's).
    """
    a = i64(args, 8)
    strip_bytes = a[1] * a[3]
    scratch = a[6] + thread * a[7]
    while True:
        strip = claim(desk, 1)
        if strip >= a[4]:
            return
        place = a[0] + strip * strip_bytes
        source, copy = i64(place, strip_bytes // 8), i64(scratch, strip_bytes // 8)
        for i in range(strip_bytes // 8):
            copy[i] = source[i]
        call4(a[5], (scratch, a[1], place, a[2]))


@row_driver
def embed(args: int, desk: int, thread: int, threads: int) -> None:
    """As `rows.embed`, from a table whose first rows lie in strips.

    Arguments: those of `rows.embed`, rows a strip, leaf that reads a row, scratch, bytes of scratch a thread (a row's), rows that
    lie in strips.
    """
    a = i64(args, 13)
    count, width, lanes = i64(a[0], 1)[0], a[7], a[8]
    tokens = i32(a[1], count)
    scratch = a[10] + thread * a[11]
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        token = tokens[row]
        place = a[2] + token * a[3]
        if token < a[12]:
            call4(a[9], (a[2] + token // lanes * lanes * a[3], token % lanes, scratch, a[4]))
            place = scratch
        call3(a[5], (place, a[6] + 4 * row * width, a[4]))
