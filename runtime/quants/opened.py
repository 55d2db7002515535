"""Opened strips: what prompts meet of types that lie in strips, every weight a byte of its own.

A leaf of eight columns takes a strip apart for these alone, which is a tenth (Q4_K) to a quarter (Q3_K) of its time. For many
columns that is done once: all registers that are made of a block alone, weights and scales, are written down one after the other
in the order in which products want them. What is done with them is the type's own code, so results have the same bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from runtime.quants import BY_NAME
from runtime.quants.base import QuantType, Value
from runtime.quants.strips import Strip, StripType, Woven

if TYPE_CHECKING:
    from runtime.kernels.strips import StripEmitter


class Opened(Woven):
    """A block: registers in a row, four bytes of each row of a strip."""

    near = True
    long = True
    only_widest = True
    pays_from = 40

    def __init__(self, kind: StripType) -> None:
        self.kind, self.name = kind, f"opened{kind.name}"
        self.activation, self.rounded, self.block_size = kind.activation, kind.rounded, kind.block_size
        self.elements = (4,) * (self.block_size // 4 + kind.opens)
        self.block_bytes = sum(self.elements)

    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        return self.kind.emit_strip(e, _Opened(e, w.pointer), xs, sums)

    def emit_open(self, e: StripEmitter, w: Value, out: Value) -> None:
        """The block of a strip at `w` -> one of these at `out`."""
        self.kind.emit_strip(e, _Opening(e, w, out), [], [])


class _Near(Strip):
    """A block that asks for nothing ahead."""

    def __init__(self, e: StripEmitter, pointer: Value) -> None:
        super().__init__(e, pointer, pointer, 0, registers=1, once=False, spread=False, pinned=False, long=True, keep=False)
        self._places = itertools.count(0, 4)  # of registers, as they are asked for

    def paced(self, weights: Iterable[Value], registers: int = 0) -> Iterator[Value]:
        return map(self.made, weights)


class _Opened(_Near):
    """An opened block, which the type's code reads. What takes it apart is there, but nothing uses it, so no instruction comes of
    it."""

    def made(self, register: Value) -> Value:
        return self._load(next(self._places), register.type)


class _Opening(_Near):
    """A block as it lies in a strip, of which is written down at `out` what the type's code makes."""

    def __init__(self, e: StripEmitter, pointer: Value, out: Value) -> None:
        super().__init__(e, pointer)
        self._out = out

    def made(self, register: Value) -> Value:
        self.e.store(register, self._out, self.e.lanes * next(self._places))
        return register


_TYPES = [kind for kind in BY_NAME.values() if isinstance(kind, StripType) and kind.opens]
OPENED: dict[str, Opened] = {opened.name: opened for opened in map(Opened, _TYPES)}


def opened_form(kind: QuantType) -> Opened | None:
    """How strips of that type are opened for prompts; None: they are not."""
    return next((opened for opened in OPENED.values() if opened.kind is kind), None)
