"""The CPU's side of the hand-off: pinned memory that both sides read, and the Program that answers the GPU's tickets."""

from __future__ import annotations

import ctypes
import math
import time

import numpy as np
import numpy.typing as npt
import torch

from runtime.execute.buffers import Buffer
from runtime.execute.experts import Layer
from runtime.execute.recorder import Recorder
from runtime.execute.step import Limits, Value
from runtime.kernels import handoff
from runtime.kernels.leaves import Leaves
from runtime.kernels.pool import Pool
from runtime.weights import aligned_array

LOST = "the GPU and the CPU lost each other in the middle of a step"
PATIENCE = 0.4  # seconds in which a step ends once one side gave up
WORD = 32  # int32 between words that different sides write, a cache line and its neighbour


class HandoffError(Exception):
    """The GPU and the CPU waited for one another in vain; the state of the model is unknown."""


class Box(ctypes.Structure):
    """`Mailbox` of runtime/cuda/source/mailbox.cu."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("ticket", "reply", "abort", "x", "y", "weights", "ids"))


class Mailbox:
    """Rows of x out, rows of y back; `rows` of `width` values at the most, `used` experts a row."""

    def __init__(self, rows: int, width: int, used: int, *, pinned: bool) -> None:
        self.rows, self.width, self.used = rows, width, used
        self._lost_since = math.inf
        self._words = torch.zeros(3 * WORD, dtype=torch.int32, pin_memory=pinned)
        self._x = torch.zeros((rows, width), pin_memory=pinned)
        self._y = torch.zeros((rows, width), pin_memory=pinned)
        self._weights = torch.zeros((rows, used), pin_memory=pinned)
        self._ids = torch.zeros((rows, used), dtype=torch.int32, pin_memory=pinned)
        words = (self._words[WORD * i :].data_ptr() for i in range(3))
        self.box = Box(*words, *(part.data_ptr() for part in (self._x, self._y, self._weights, self._ids)))

    def seconds(self, leaves: Leaves, threads: int, layer: Layer, rows: int) -> float:
        """How long the CPU takes over a layer's experts for so many rows with random choices: the better of two tries."""
        rng = np.random.default_rng(0)
        self._ids.numpy()[:rows] = np.argsort(rng.random((rows, layer.experts)), axis=1)[:, : self.used]
        program, best = ExpertProgram(leaves, threads, self, [layer]), math.inf
        for ticket in range(1, 4):  # the first try only touches the memory
            self._words[0] = ticket
            start = time.perf_counter()
            program.run(rows)
            best = min(best, time.perf_counter() - start) if ticket > 1 else best
        program.close()
        self._words[:] = 0
        return best

    def check(self) -> None:
        """HandoffError when one side gave up."""
        if self._words[2 * WORD]:
            raise HandoffError(LOST)

    def stuck(self) -> str:
        """LOST when one side gave up and the other has not noticed for PATIENCE, else "". To be asked again and again."""
        if not self._words[2 * WORD]:
            return ""
        now = time.monotonic()
        self._lost_since = min(self._lost_since, now)
        return LOST if now - self._lost_since >= PATIENCE else ""

    def abort(self) -> None:
        """Let both sides give up."""
        self._words[2 * WORD] = 1


class ExpertProgram(Recorder):
    """For each layer: wait for a ticket, compute the experts asked for, answer. One `run` serves one step."""

    def __init__(self, leaves: Leaves, threads: int, mailbox: Mailbox, layers: list[Layer]) -> None:
        super().__init__(leaves, threads, Limits(mailbox.rows, 1, 1, 1, 1))
        self._answered: npt.NDArray[np.int32] = aligned_array((16,), np.int32)
        for layer in layers:
            self._layer(mailbox, layer)
        self._pool = Pool(threads, lasting=True)
        self._table = self.table()
        self._counters: npt.NDArray[np.int64] = aligned_array((len(self._table), 8), np.int64)
        self.busy: list[float] | None = None  # seconds over experts of each step, where somebody wants to know

    def _layer(self, mailbox: Mailbox, layer: Layer) -> None:
        box, count, last = mailbox.box, self.step.counts.ctypes.data, self._answered.ctypes.data
        nbytes = 4 * mailbox.rows * mailbox.width
        x = Value(Buffer(box.x, nbytes), mailbox.width, count, mailbox.rows)
        y = Value(Buffer(box.y, nbytes), mailbox.width, count, mailbox.rows)
        self._row(handoff.wait, box.ticket, box.abort, last)
        self._work(mailbox, layer, x, y)
        self._row(handoff.reply, box.reply, last)

    def _work(self, mailbox: Mailbox, layer: Layer, x: Value, y: Value) -> None:
        """Between a ticket and its answer: y = the chosen experts' sum."""
        pairs = 4 * mailbox.rows * mailbox.used
        ids, weights = Buffer(mailbox.box.ids, pairs), Buffer(mailbox.box.weights, pairs)
        self.routed(x, ids, weights, layer.matrices, mailbox.used, y)

    def run(self, rows: int) -> None:
        """Answer all tickets of a step of `rows` rows; returns when the last is answered or one side gave up."""
        self.step.counts[0] = rows
        if self.busy is None:
            self._pool.run(self._table, self._counters, single=rows == 1)
        else:
            self.busy.append(self._run_timed(single=rows == 1))

    def _run_timed(self, *, single: bool) -> float:
        """A step; seconds over experts, without those over waiting and answering."""
        begin = time.perf_counter()
        ticks = np.diff(self._pool.run_timed(self._table, self._counters, single))
        working = [not label.startswith("handoff.") for label in self.labels]
        return (time.perf_counter() - begin) * float(ticks[working].sum() / max(1, ticks.sum()))

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()
