"""The CPU's side of a hand-off without experts: every ticket is answered with the rows that came with it."""

from __future__ import annotations

import numpy as np

from runtime.execute.experts import Layer
from runtime.execute.mailbox import ExpertProgram, Mailbox
from runtime.execute.step import Value
from runtime.kernels import rows
from runtime.kernels.leaves import Leaves
from runtime.weights import aligned_array


class Echo(ExpertProgram):
    """Answers `each` tickets a run. `last`: the ticket before the first one."""

    def __init__(self, mailbox: Mailbox, each: int, last: int) -> None:
        self._zeros = aligned_array((mailbox.rows, mailbox.width), np.float32)
        super().__init__(Leaves(), 1, mailbox, [None] * each)
        self._answered[0] = last

    @property
    def answered(self) -> int:
        """The last ticket that was answered."""
        return int(self._answered[0])

    def _work(self, mailbox: Mailbox, layer: Layer | None, x: Value, y: Value) -> None:
        self._row(rows.add, x.count, x.address, self._zeros.ctypes.data, y.address, x.width)
