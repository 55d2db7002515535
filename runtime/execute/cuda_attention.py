"""Attention on the card over the cache's blocks: of single rows, and of many rows of one text."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from runtime.core import BLOCK_TOKENS, Batch, ModelError
from runtime.cuda.blocks import BlockMemory
from runtime.cuda.module import Module
from runtime.execute import wide_heads
from runtime.execute.cuda_core import CHUNK, CudaCore
from runtime.execute.cuda_structs import HeadShape, Pages
from runtime.execute.cuda_values import Value
from runtime.execute.device_step import DeviceStep
from runtime.execute.long_texts import too_wide
from runtime.kernels.kept import CARD_ROW, F16, Kept
from runtime.kernels.leaves import Leaves
from runtime.layers.ops import Attending, Heads, Rotation
from runtime.quants import QuantType

SHORT = 8  # rows of one text that attend as single rows; more attend together
EIGHT, WARP = 8, 32  # values that a lane of attention.cu takes at a time; lanes
MANY = 64  # columns of a block of attend_many.cu
BLOCKS_WANTED = 528  # of threads, four on each of an H100's multiprocessors: attention is split until there are so many


class Attend(NamedTuple):
    """One of the kernels that ATTEND of attention.cu makes; fields as there."""

    bits: int
    heads: int
    lanes: int
    keys: int
    values: int
    tokens: int

    @classmethod
    def of(cls, heads: Heads, kept: Kept) -> Attend:
        """The one for such heads. ModelError where there is none."""
        key, value = (math.ceil(size / EIGHT) for size in (heads.key_length, heads.value_length))
        if max(key, value) > 3 * WARP or heads.key_length % 4 or heads.value_length % 4:
            raise ModelError(f"heads of {heads.key_length} and {heads.value_length} values cannot be computed on the GPU")
        lanes = next(n for n in (8, 16, WARP) if n == WARP or max(key, value) <= n)
        keys, values = math.ceil(key / lanes), math.ceil(value / lanes)
        group = heads.head_count // heads.head_count_kv
        together = next(n for n in (4, 2, 1) if group % n == 0 and n * values <= 8)  # with 48 KiB for what they share
        return cls(kept.bits, together, lanes, keys, values, 1 if keys > 2 else 2 if keys == 2 or lanes == 8 else 4)

    @property
    def name(self) -> str:
        return "attend_" + "_".join(map(str, self[:-1]))

    @property
    def code(self) -> str:
        return f"ATTEND({', '.join(map(str, self))})"


class AttendMany(NamedTuple):
    """One of the kernels that ATTEND_MANY of attend_many.cu makes: sizes in sixteens of values."""

    bits: int
    keys: int
    values: int

    @classmethod
    def of(cls, heads: Heads, kept: Kept) -> AttendMany | None:
        """The one for such heads; None where they are too wide."""
        return None if too_wide(heads) else cls(kept.bits, math.ceil(heads.key_length / 16), math.ceil(heads.value_length / 16))

    @property
    def name(self) -> str:
        return "attend_many_" + "_".join(map(str, self))

    @property
    def code(self) -> str:
        return f"ATTEND_MANY({', '.join(map(str, self))})"


def kernels(every: Iterable[Heads], kept: Kept) -> set[str]:
    """The code of the kernels that attention takes for all of a model's heads. ModelError where there is none."""
    some = ((Attend.of(heads, kept), AttendMany.of(heads, kept)) for heads in every)
    return {kernel.code for pair in some for kernel in pair if kernel is not None}


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What the rows of a layer attend to: keys and values of all texts, and sinks."""

    heads: Heads
    shape: HeadShape
    keys: torch.Tensor
    values: torch.Tensor
    sinks: torch.Tensor | None


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """Rows [first, last) of a step: one text's, which is `length` tokens long after them and has line `line` of the tables."""

    first: int
    last: int
    length: int
    line: int


def spans(batch: Batch) -> list[Span]:
    """The texts of a batch."""
    edges = [0, *(np.flatnonzero(np.diff(batch.sequences)) + 1).tolist(), len(batch.tokens)]
    return [
        Span(first, last, int(batch.positions[last - 1]) + 1, int(batch.sequences[first]))
        for first, last in itertools.pairwise(edges)
    ]


def _shape(heads: Heads) -> HeadShape:
    return HeadShape(
        *(heads.head_count, heads.head_count_kv, heads.key_length, heads.value_length),
        *(heads.scale, heads.window, heads.value_eps, heads.softcap),
    )


class CudaAttention(CudaCore):
    """The operation `attention`, over the cache's blocks."""

    def __init__(
        self,
        module: Module,
        step: DeviceStep,
        blocks: BlockMemory,
        leaves: Leaves,
        kinds: Iterable[QuantType],
        kept: Kept = F16,
    ) -> None:
        super().__init__(module, step, blocks, leaves, kinds)
        self.caches: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by layer: (blocks, kv heads, bytes of a head)
        self._kept = kept
        self._turns: list[tuple[Rotation, torch.Tensor]] = []
        self._long: list[tuple[Span, torch.Tensor]] = []  # with the numbers of its text's blocks, on the device
        self._short: tuple[torch.Tensor, torch.Tensor, int] | None = None  # rows, how many, and that on the host

    def begin(self, rows: int, outputs: int, batch: Batch | None) -> None:
        super().begin(rows, outputs, batch)
        self._turns, self._long, self._short = [], [], None
        if batch is not None:
            texts = spans(batch)
            self._long = [(span, self._blocks_of(span, batch)) for span in texts if span.last - span.first > SHORT]
            rest = [row for span in texts if span.last - span.first <= SHORT for row in range(span.first, span.last)]
            listed = torch.tensor([*rest, len(rest)], dtype=torch.int32).to(self.device)
            self._short = listed[:-1], listed[-1:], len(rest)

    def attention(self, q: Value, k: Value, v: Value, how: Attending) -> Value:
        heads = how.heads
        if not heads.causal:
            raise ModelError("this model needs whole texts: it makes vectors of them, and no text of its own")
        seen = Seen(heads, _shape(heads), *self._cache(how.layer, heads), None if how.sinks is None else self._vector(how.sinks))
        pages = self._pages(seen)
        norms, rotation = how.norms, how.rotation
        weights = (self._vector(norms[0]), self._vector(norms[1]), norms[2]) if norms else (None, None, 0.0)
        tasks = q.rows * (heads.head_count + 2 * heads.head_count_kv)
        table, half = (self._turn_table(rotation), len(rotation.frequencies)) if rotation else (None, 0)
        self._launch(
            "rotate_store", (math.ceil(tasks / 8),), 256,
            *(q.data, k.data, v.data, *weights, table, half, int(heads.rope_interleaved)),
            *(seen.shape, pages, q.count),
        )  # fmt: skip
        out = self._like(q, heads.head_count * heads.value_length)
        for span, blocks in self._long:
            part = slice(span.first, span.last)
            self._attend_long(q.data[part], out.data[part], seen, span, blocks)
        if self._short is None:
            self._attend_rows(q, out, seen, pages, None, q.count, q.rows)
        elif self._short[2]:
            self._attend_rows(q, out, seen, pages, *self._short)
        return out

    def _attend_rows(
        self, q: Value, out: Value, seen: Seen, pages: Pages, listed: torch.Tensor | None, count: torch.Tensor, n: int
    ) -> None:
        """Single rows, each against its whole text, which is split among several blocks of threads."""
        heads, kernel = seen.heads, Attend.of(seen.heads, self._kept)
        groups = heads.head_count // kernel.heads
        splits = max(1, min(32, BLOCKS_WANTED // (n * groups)))
        part = torch.empty((n, heads.head_count, splits, 2 + heads.value_length), device=self.device)
        self._launch(kernel.name, (splits, groups, n), 128, q.data, part, seen.shape, pages, listed, count)
        packing = self._packing(out, wanted=not self._long)  # whose rows come from elsewhere
        joins = math.ceil(out.width / CHUNK), n
        self._launch("attend_join", joins, 256, part, out.data, packing, seen.shape, pages, splits, seen.sinks, listed, count)

    def _attend_long(self, q: torch.Tensor, out: torch.Tensor, seen: Seen, span: Span, blocks: torch.Tensor) -> None:
        """Many rows of one text, (rows, heads * size)."""
        heads, rows = seen.heads, span.last - span.first
        kernel = AttendMany.of(heads, self._kept)
        if kernel is None:
            out.copy_(self._attend_wide(q, seen, span, blocks))
        else:
            grid = math.ceil(rows * heads.head_count // heads.head_count_kv / MANY), heads.head_count_kv
            text = seen.keys, seen.values, blocks, rows, span.length
            self._launch(kernel.name, grid, 128, q, out, seen.shape, *text, seen.sinks)
        if self._kept is not F16:
            count = rows * heads.head_count
            self._launch("spread_heads", (math.ceil(count / 8),), 256, out, count, heads.value_length)

    def _attend_wide(self, q: torch.Tensor, seen: Seen, span: Span, blocks: torch.Tensor) -> torch.Tensor:
        heads = seen.heads

        def gather(first: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
            part = blocks[first // BLOCK_TOKENS :]
            keys = self._gathered(seen.keys, part, heads.head_count_kv, heads.key_length, end - first)
            return keys, self._gathered(seen.values, part, heads.head_count_kv, heads.value_length, end - first)

        return wide_heads.attend(q, gather, span.length, heads, seen.sinks)

    def _gathered(self, cache: torch.Tensor, blocks: torch.Tensor, kv: int, size: int, tokens: int) -> torch.Tensor:
        """So many tokens from the start of `blocks`, (kv, tokens, size) in f16."""
        width = math.ceil(size / CARD_ROW) * CARD_ROW
        out = torch.empty((kv, tokens, width), dtype=torch.float16, device=self.device)
        grid = math.ceil(tokens / BLOCK_TOKENS), kv
        self._launch("gather_text", grid, 256, cache, blocks, out, self._kept.bits, kv, size, tokens)
        return out[..., :size]

    def _blocks_of(self, span: Span, batch: Batch) -> torch.Tensor:
        """The blocks of a text, int32."""
        n_blocks = -(-span.length // BLOCK_TOKENS)
        return torch.from_numpy(batch.tables[span.line, :n_blocks].astype(np.int32)).to(self.device)

    def _turn_table(self, rotation: Rotation) -> torch.Tensor:
        """cos and sin of the step's positions, (rows, half, 2); made once a step."""
        for known, table in self._turns:
            if known is rotation:
                return table
        half = len(rotation.frequencies)
        table = torch.empty((self._rows, half, 2), device=self.device)
        frequencies, step = self._vector(rotation.frequencies), self._step
        magnitude = float(rotation.magnitude)
        self._launch("rotary_table", (self._rows,), 64, step.positions, frequencies, table, half, magnitude, step.rows_count)
        self._turns.append((rotation, table))
        return table

    def _pages(self, seen: Seen) -> Pages:
        step = self._step
        numbers = (part.data_ptr() for part in (step.positions, step.sequences, step.tables))
        return Pages(*numbers, step.table, self._kept.bits, seen.keys.data_ptr(), seen.values.data_ptr())

    def _cache(self, layer: int, heads: Heads) -> tuple[torch.Tensor, torch.Tensor]:
        if layer not in self.caches:
            sizes = heads.key_length, heads.value_length
            keys, values = (self._blocks.array((heads.head_count_kv, self._kept.card_bytes(n)), torch.uint8) for n in sizes)
            self.caches[layer] = keys, values
        return self.caches[layer]
