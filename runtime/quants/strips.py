"""Strips: as many rows of a matrix as a register has 32-bit lanes, interleaved: a vector holds the same place of each row.

Scales are then vectors as well, no sum crosses lanes, and a register of weights serves every activation column: in cache a
product takes a half to a tenth of the time that it takes with rows one after the other. The bytes are those of the file in
another order, so it is done in place when a model is loaded.

A strip's blocks follow one another; within one, element j of a block (of 1, 2 or 4 bytes, as `elements` says) stands for all
rows of the strip before element j + 1 does. So what lies at byte `offset` of a block lies at `lanes * offset` of a strip's.
A type may arrange the bits within each block anew before that (`arranged`), where the file's order is costly to take apart.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, LeafType, Value

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter


class Strip:
    """A block of every row of a strip, or `count` times what the type's `elements` divide, as an emitter sees it.

    `ahead` is where the cache lines begin that are asked for meanwhile, `lines` of them: they are spread over the registers of
    weights, because all at once they would wait for one another, and come in order, as memory gives most. `spread`: between them;
    else after them, and in `long` code where later loads wait. `pinned`: LLVM, which likes to move them all to the end of a long
    block, is kept from it.
    `once`: nobody reads these weights again soon, as where there is one column. `keep`: what was loaded stays in a register for
    the next who asks for it, as there are enough; otherwise a load costs less than to keep it elsewhere.
    """

    def __init__(self, e: StripEmitter, pointer: Value, ahead: Value, lines: int, *, registers: int, once: bool, spread: bool,
                 pinned: bool, long: bool, keep: bool, count: int = 1) -> None:  # fmt: skip
        self.e = e
        self.count = count
        self.pointer = pointer
        self._ahead = ahead
        self._lines, self._all_lines = iter(range(lines)), lines
        self._registers = registers
        self._spread = spread
        self._pinned, self._long = pinned, long
        self._due = 0.0
        self._loose = 0  # lines asked for that LLVM may move
        self._once = once
        self._kept: dict[tuple[int, str], Value] | None = {} if keep else None

    def bytes(self, offset: int) -> Value:
        """Four bytes of each row, <4 lanes x i8>."""
        return self._load(offset, self.e.bytes(4 * self.e.lanes))

    def dwords(self, offset: int) -> Value:
        """Four bytes of each row, <lanes x i32>."""
        return self._load(offset, self.e.vector(self.e.I32, self.e.lanes))

    def words(self, offset: int) -> Value:
        """Two bytes of each row, <lanes x i16>."""
        return self._load(offset, self.e.vector(self.e.I16, self.e.lanes))

    def byte(self, offset: int) -> Value:
        """A byte of each row, <lanes x i8>."""
        return self._load(offset, self.e.bytes(self.e.lanes))

    def half(self, offset: int) -> Value:
        """An f16 of each row as f32."""
        return self.made(self.e.half(self.words(offset)))

    def made(self, register: Value) -> Value:
        """A register that is made of the block alone, and that products need: opened strips have it ready."""
        return register

    def wait(self, value: Value) -> None:
        """Let no later load come before `value`. Long code asks for lines there, and jumps (see `StripEmitter.after_asking`)."""
        self.pointer = self.e.after(self.pointer, value)
        if self._long and ((lines := list(self._due_lines())) or not self._all_lines):
            self.pointer = self.e.after_asking(self.pointer, self._ahead, lines)

    def paced(self, weights: Iterable[Value], registers: int = 0) -> Iterator[Value]:
        """The same registers, lines asked for between them; after them where columns are many or registers few, so that LLVM can
        move loads. `registers`: how many a block has, if not one for each four values."""
        pace = self._all_lines / (registers or self._registers)
        for register in weights:
            yield register
            self._due += pace
            if self._spread:
                self._prefetch(self._due_lines())
            if self.e.registers == 32:  # else LLVM has to choose what registers hold in a group
                self._pin(1)
        if not self._long:
            self._prefetch(self._due_lines())
            self._pin(2)

    def ask_nothing(self) -> None:
        """Ask for no line ahead."""
        self._lines = iter(range(0))

    def prefetch(self) -> None:
        """Ask for all lines that are left."""
        self._prefetch(self._lines)

    def _due_lines(self) -> Iterator[int]:
        due = int(self._due)
        self._due -= due
        return itertools.islice(self._lines, due)

    def _prefetch(self, lines: Iterator[int]) -> None:
        for line in lines:
            self.e.prefetch(self._ahead, line, once=self._once)
            self._loose += 1

    def _pin(self, least: int) -> None:
        """Let the lines asked for stay here, where there are so many since the last time."""
        if self._pinned and self._loose >= least:
            self.e.keep_order()
            self._loose = 0

    def _load(self, offset: int, kind: Value) -> Value:
        if self._kept is None:
            return self.e.load(self.pointer, self.e.lanes * offset, kind)
        place = offset, str(kind)
        if place not in self._kept:
            self._kept[place] = self.e.load(self.pointer, self.e.lanes * offset, kind)
        return self._kept[place]


class Woven(abc.ABC):
    """What is multiplied in strips. A running sum is one vector, a lane for each row."""

    name: str
    block_size: int
    block_bytes: int
    activation: str
    rounded: str
    elements: tuple[int, ...]  # sizes of what `strip_blocks` blocks consist of, in order
    strip_blocks: int = 1
    strip_steps: tuple[int, ...] = (1,)  # how many times `elements` one `emit_strip` takes, falling; the last is 1
    shared: bool = False  # whether groups that lie in the same bytes follow one another, so that keeping those pays
    long: bool = False  # whether a block of several columns takes many hundreds of instructions
    near: bool = False  # whether they are in the core's cache, so that nothing is asked for
    streamed: bool = True  # whether one column asks for lines as read once: they leave the second level of the cache sooner
    widest: int = 8
    """Columns of the widest leaf that pays on a tier of 16 registers."""
    only_widest: bool = False
    """Whether there is no other leaf."""
    pays_from: int = 1
    """Columns for which rows are made these."""

    def strips_together(self, columns: int, e: StripEmitter) -> int:
        """Strips that a leaf for so many columns takes at a time."""
        return 1

    def pinned(self, e: StripEmitter) -> bool:
        """Whether LLVM has to be kept from moving the lines that one column asks for: where it does not, that costs a little."""
        return False

    @abc.abstractmethod
    def emit_strip(self, e: StripEmitter, w: Strip, xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        """`sums`, one for each column, with the products of a block of every row and the activations at each of `xs`."""

    def emit_strips(self, e: StripEmitter, strips: Sequence[Strip], xs: list[Value], sums: Sequence[Value]) -> list[Value]:
        """The same for several strips; `sums`: those of one strip, then those of the next."""
        of_strip = len(xs)
        return [
            total
            for k, strip in enumerate(strips)
            for total in self.emit_strip(e, strip, list(xs), sums[k * of_strip : (k + 1) * of_strip])
        ]


class StripType(LeafType, Woven):
    """A type that has leaves for strips too."""

    opens: int = 0
    """Registers beside those of weights that products need of a block, where strips are opened for many columns (see
    `runtime.quants.opened`), because taking them apart is much of the work."""

    def arranged(self, blocks: Bytes) -> Bytes:
        """(n, block_bytes): blocks of single rows, as a strip has them; the same information in as many bytes."""
        return blocks

    def emit_arranged(self, e: Emitter, w: Value, scratch: Value) -> Value:
        """The same of the block at `w`: where it lies, which may be `scratch`, a block's bytes."""
        return w

    def emit_restored(self, e: Emitter, w: Value) -> None:
        """Undo that in place."""

    def interleave(self, rows: Bytes, lanes: int) -> Bytes:
        """(rows, bytes a row), rows a multiple of `lanes` -> the same bytes in strips."""
        size = self.strip_blocks * self.block_bytes
        blocks = self.arranged(rows.reshape(-1, self.block_bytes)).reshape(-1, lanes, rows.shape[1] // size, size)
        parts, offset = [], 0
        for size in self.elements:
            part = blocks[..., offset : offset + size].transpose(0, 2, 1, 3)  # strips, blocks, lanes, bytes
            parts.append(part.reshape(*part.shape[:2], -1))
            offset += size
        return np.concatenate(parts, axis=2).reshape(rows.shape)
