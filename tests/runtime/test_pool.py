"""Threads that run a Program: each piece counts once, whichever thread is kept off its core, and rows come in their order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tiny_gguf
from numba import njit, types
from stepping import Text, blocks_for

from runtime.core import Batch
from runtime.execute.cpu import CpuExecutor
from runtime.execute.program import Row, table_of
from runtime.execute.step import view
from runtime.kernels.desk import (
    AWAY,
    BUSY,
    CONTESTED,
    COUNTER,
    EXPECTED,
    FIELDS,
    GIVEN,
    NUMBER,
    NUMBER_SHIFT,
    OUT,
    PIECE,
    PIECE_SHIFT,
    PROGRESS,
    RELEASED,
    ROOM,
    STAGING,
    STATE,
    TAKEN,
    VICTIM,
    claim,
    commit,
    show,
    take,
)
from runtime.kernels.driver import Driver, driver, row_driver
from runtime.kernels.leaves import Leaves
from runtime.kernels.memory import call4, i64
from runtime.kernels.pool import Pool, _settle
from runtime.weights import aligned_array

Words = npt.NDArray[np.int64]

PIECES = 24
_usleep = types.ExternalFunction("usleep", types.int32(types.int32))


@driver
def slow(args: int, desk: int, thread: int, threads: int) -> None:
    """out[piece] = in[piece] + 1, by threads that now and then fall asleep over it. Arguments: in, out (i64), a number that
    changes with each run, pieces done."""
    a = i64(args, 4)
    source, out = i64(a[0], PIECES), i64(a[1], PIECES)
    while True:
        piece = take(desk)
        if piece >= PIECES:
            return
        kept = show(desk, piece, 8)
        if kept < 0:
            return
        result = i64(kept if kept != 0 else a[1] + 8 * piece, 1)
        result[0] = source[piece] + 1
        if (i64(a[2], 1)[0] * 7919 + piece * 104729 + thread * 31) % 61 == 0:
            _usleep(3000)
        if not commit(desk, kept):
            return
        out[piece] = result[0]
        i64(a[3], PIECES)[piece] += 1  # were two to count, the sum would show it


@driver
def plain(args: int, desk: int, thread: int, threads: int) -> None:
    """The same by a kernel whose pieces nobody does again."""
    a = i64(args, 4)
    source, out = i64(a[0], PIECES), i64(a[1], PIECES)
    while True:
        piece = claim(desk, 1)
        if piece >= PIECES:
            return
        out[piece] = source[piece] + 1
        i64(a[3], PIECES)[piece] += 1


@row_driver
def alone(args: int, desk: int, thread: int, threads: int) -> None:
    """The same by one thread."""
    a = i64(args, 4)
    if claim(desk, 1) != 0:
        return
    for piece in range(PIECES):
        i64(a[1], PIECES)[piece] = i64(a[0], PIECES)[piece] + 1
        i64(a[3], PIECES)[piece] += 1


class Rows:
    """A program: each row adds 1 to what the row before has made."""

    def __init__(self, *kernels: Driver) -> None:
        cache = Leaves().cache
        self.run = aligned_array((1,), np.int64)
        self.values = aligned_array((len(kernels) + 1, PIECES), np.int64)
        self.done = aligned_array((len(kernels), PIECES), np.int64)
        self.arguments = aligned_array((len(kernels), 8), np.int64)
        for row in range(len(kernels)):
            addresses = self.values[row].ctypes.data, self.values[row + 1].ctypes.data, self.run.ctypes.data
            self.arguments[row, :4] = *addresses, self.done[row].ctypes.data
        entries = zip(kernels, self.arguments, strict=True)
        self.program = table_of([Row(kernel, arguments, kernel.by_row) for kernel, arguments in entries], cache)
        self.counters = aligned_array((len(kernels), 8), np.int64)


@pytest.mark.parametrize(("threads", "lasting"), [(1, True), (2, False), (3, True), (8, True)])
def test_every_piece_counts_once_whoever_sleeps(threads: int, lasting: bool) -> None:
    rows = Rows(alone, slow, plain, slow, alone, alone, slow, slow, plain, alone)
    pool = Pool(threads, lasting=lasting)
    for run in range(60):
        rows.run[0] = run
        rows.values[0] = 1000 * run + np.arange(PIECES)
        if run % 10 == 9:
            assert (np.diff(pool.run_timed(rows.program, rows.counters, single=run % 20 == 9)) >= 0).all()
        else:
            pool.run(rows.program, rows.counters, single=run % 3 != 0)
        assert not rows.counters.any()
        assert (rows.values == rows.values[0] + np.arange(len(rows.values))[:, None]).all()
        assert (rows.done == run + 1).all()
    pool.close()


def test_a_caller_that_was_put_out_of_the_last_row_is_not_waited_for() -> None:
    rows, pool = Rows(slow), Pool(2)
    pool.run(rows.program, rows.counters)
    pool._desks[0, STATE] = OUT  # as the other thread leaves it that is first to arrive, and to end the program
    ended = threading.Thread(target=lambda: _settle(pool._control.ctypes.data), daemon=True)
    ended.start()
    ended.join(20)
    waits = ended.is_alive()
    pool._desks[0, STATE] = AWAY
    ended.join()
    pool.run(rows.program, rows.counters)  # and it takes part again
    pool.close()
    assert not waits
    assert (rows.done == 2).all()


def test_a_pool_that_is_closed_at_once_ends() -> None:
    for _ in range(20):
        Pool(3).close()


class Desks:
    """Two desks of a pool's threads: the first one has done its part of row 7 and does pieces of the second one again."""

    def __init__(self) -> None:
        self._released = np.array([7], np.int64)
        self._aside = aligned_array((1 << 20,), np.uint8)
        self._counter = aligned_array((8,), np.int64)
        self._desks = aligned_array((2, FIELDS), np.int64)
        helper = self._desks[0]
        helper[[NUMBER, EXPECTED, ROOM]] = 7, 8, len(self._aside)
        helper[[STAGING, COUNTER]] = self._aside.ctypes.data, self._counter.ctypes.data
        helper[RELEASED], helper[VICTIM] = self._released.ctypes.data, self._desks[1].ctypes.data

    def run(self, entry: Words, *, late: bool) -> int:
        """Do every piece of a row again, as if the second thread had them one by one. `late`: it has finished them meanwhile, and
        the row is over. How many pieces have counted, -1 where the kernel's are not done again."""
        helper, victim = self._desks
        self._counter[0], self._released[0] = 0, 8 if late else 7
        for piece in range(1 << 20):
            helper[PIECE], helper[PROGRESS] = piece, GIVEN
            contested = CONTESTED | piece << PIECE_SHIFT | 7 << NUMBER_SHIFT
            victim[STATE] = BUSY if late else contested
            _call(entry[0], entry[1], helper.ctypes.data)
            if helper[PROGRESS] == GIVEN:  # what the helper has left, an owner does
                helper[VICTIM] = 0
                _call(entry[0], entry[1], helper.ctypes.data)
                helper[VICTIM] = victim.ctypes.data
                return -1
            if helper[PROGRESS] == TAKEN:
                assert victim[STATE] == (BUSY if late else contested)
                return piece
            assert victim[STATE] == OUT
        raise AssertionError("no end")


@njit
def _call(kernel: int, arguments: int, desk: int) -> None:
    call4(kernel, (arguments, desk, 0, 2))


MODELS = {
    "experts": ("qwen3moe", "MIX", "f16"),
    "biases": ("gpt-oss", "MIX", "f16"),
    "dense": ("gemma2", "Q4_K", "q8_0"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_step_whose_pieces_are_all_done_again_has_the_same_logits(
    executors: Callable[..., CpuExecutor], tmp_path: Path, name: str, rows: int
) -> None:
    architecture, kind, kept = MODELS[name]
    executor = executors(tiny_gguf.write(tmp_path / "model.gguf", tiny_gguf.variant(architecture, kind)), kind=kept)
    text, tokens = Text(executor, blocks_for(1024)), np.random.default_rng(0).integers(0, 300, 600)
    for start in range(0, 600, 100):
        text.feed(tokens[start : start + 100].tolist())
    positions, zeros = np.arange(600, 600 + rows, dtype=np.int32), np.zeros(rows, np.int32)
    batch = Batch(np.arange(7, 7 + rows, dtype=np.int32), positions, zeros, text.table, np.arange(rows, dtype=np.int32))
    wanted, recorded, desks = executor.forward(batch).copy(), executor._recorded, Desks()
    again = [desks.run(entry, late=False) >= 0 for entry in recorded._program]
    assert sum(again) > 4
    view(recorded.out, rows)[:] = np.nan
    for entry, moves in zip(recorded._program, again, strict=True):
        if moves:
            assert desks.run(entry, late=True) == 0
        desks.run(entry, late=False)
    assert (view(recorded.out, rows) == wanted).all()
