"""Drivers of the CPU's side of a mailbox: wait for the GPU's ticket, answer it (runtime/cuda/source/mailbox.cu is the other)."""

from __future__ import annotations

import numpy as np
from numba import types

from runtime.kernels.desk import claim
from runtime.kernels.driver import row_driver
from runtime.kernels.memory import i32, i64, load_acquire32, pause, store_release32

DEADLINE = 4  # seconds without a ticket; the GPU gives up on an answer after 2
LOOK = 1 << 14  # polls between two looks at the clock

_time = types.ExternalFunction("time", types.int64(types.int64))


@row_driver
def wait(args: int, desk: int, thread: int, threads: int) -> None:
    """Until the next ticket is there, or somebody gave up. The other threads wait at the barrier behind this row.

    Arguments: addresses of the ticket (i32), of the abort word (i32), and of the last ticket answered (i32).
    """
    if claim(desk, 1) != 0:
        return
    a = i64(args, 3)
    wanted = np.int32(i32(a[2], 1)[0] + np.int32(1))  # modulo 2 ** 32
    polls, start = 0, 0
    while load_acquire32(a[0]) != wanted and load_acquire32(a[1]) == 0:
        pause()
        polls += 1
        if polls % LOOK == 0:
            now = _time(0)
            if start == 0:
                start = now
            elif now - start > DEADLINE:
                store_release32(a[1], np.int32(1))


@row_driver
def reply(args: int, desk: int, thread: int, threads: int) -> None:
    """Answer the ticket that `wait` saw: the rows before have written what it asked for.

    Arguments: addresses of the reply (i32) and of the last ticket answered (i32).
    """
    if claim(desk, 1) != 0:
        return
    a = i64(args, 2)
    last = i32(a[1], 1)
    last[0] = np.int32(last[0] + np.int32(1))
    store_release32(a[0], last[0])
