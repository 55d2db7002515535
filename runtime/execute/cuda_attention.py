"""Attention on the card: single rows by our own kernel, long runs of one text by torch's."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from runtime.core import BLOCK_TOKENS, Batch, FloatArray, ModelError
from runtime.cuda.blocks import BlockMemory
from runtime.cuda.module import Module
from runtime.execute.cuda_core import CHUNK, FEW, CudaCore
from runtime.execute.cuda_structs import HeadShape, Pages
from runtime.execute.cuda_values import Value
from runtime.execute.device_step import DeviceStep
from runtime.execute.long_texts import SCORES, is_plain
from runtime.kernels.leaves import Leaves
from runtime.layers.ops import Heads, Rotation
from runtime.quants import QuantType

SHORT = 8  # rows of one text that attend as single rows; more attend together
HEAD_VALUES = (1, 2, 3, 4, 6, 8, 16, 18)  # values of a head that a lane of attention.cu holds
BLOCKS_WANTED = 528  # of threads, four on each of an H100's multiprocessors: attention is split until there are so many


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


class CudaAttention(CudaCore):
    """The operation `attention`, over the cache's blocks."""

    def __init__(self, module: Module, step: DeviceStep, blocks: BlockMemory, leaves: Leaves, kinds: Iterable[QuantType]) -> None:
        super().__init__(module, step, blocks, leaves, kinds)
        self.caches: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by layer: (blocks, kv heads, 64, size) in f16
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

    def attention(
        self,
        layer: int,
        q: Value,
        k: Value,
        v: Value,
        heads: Heads,
        rotation: Rotation | None,
        norms: tuple[FloatArray, FloatArray, float] | None,
        sinks: FloatArray | None = None,
    ) -> Value:
        if not heads.causal:
            raise ModelError("this model needs whole texts: it makes vectors of them, and no text of its own")
        shape = HeadShape(
            *(heads.head_count, heads.head_count_kv, heads.key_length, heads.value_length),
            *(heads.scale, heads.window, heads.value_eps, heads.softcap),
        )
        own = self._vector(sinks) if sinks is not None else None
        keys, values = self._cache(layer, heads)
        step = self._step
        pages = Pages(*(part.data_ptr() for part in (step.positions, step.sequences, step.tables)), step.table,
                      keys.data_ptr(), values.data_ptr())  # fmt: skip
        weights = (self._vector(norms[0]), self._vector(norms[1]), norms[2]) if norms else (None, None, 0.0)
        tasks = q.rows * (heads.head_count + 2 * heads.head_count_kv)
        table, half = (self._turn_table(rotation), len(rotation.frequencies)) if rotation else (None, 0)
        self._launch(
            "rotate_store", (math.ceil(tasks / 8),), 256,
            *(q.data, k.data, v.data, *weights, table, half, int(heads.rope_interleaved)),
            *(shape, pages, q.count),
        )  # fmt: skip
        out = self._like(q, heads.head_count * heads.value_length)
        for span, table in self._long:
            part = slice(span.first, span.last)
            out.data[part] = self._attend_long(q.data[part], keys, values, span, table, heads, own)
        if self._short is None:
            self._attend_rows(q, out, heads, shape, pages, own, None, q.count, q.rows)
        elif self._short[2]:
            self._attend_rows(q, out, heads, shape, pages, own, *self._short)
        return out

    def _attend_rows(
        self,
        q: Value,
        out: Value,
        heads: Heads,
        shape: HeadShape,
        pages: Pages,
        sinks: torch.Tensor | None,
        listed: torch.Tensor | None,
        count: torch.Tensor,
        n: int,
    ) -> None:
        """Single rows, each against its whole text, which is split among several blocks of threads."""
        group = heads.head_count // heads.head_count_kv
        together = next(size for size in (4, 2, 1) if group % size == 0)
        need = math.ceil(max(heads.key_length, heads.value_length) / 32)
        per = next((size for size in HEAD_VALUES if size >= need), 0)
        if not per:
            raise ModelError(f"heads of {heads.key_length} values are too large for the GPU")
        blocks = n * heads.head_count // together
        splits = max(1, min(32, BLOCKS_WANTED // blocks))
        part = torch.empty((n, heads.head_count, splits, 2 + heads.value_length), device=self.device)
        grid = splits, heads.head_count // together, n
        self._launch(f"attend_{together}_{per}", grid, 128, q.data, part, shape, pages, listed, count)
        packing = self._packing(out, wanted=out.rows <= FEW and not self._long)  # a long text's rows come from elsewhere
        joins = math.ceil(out.width / CHUNK), n
        self._launch("attend_join", joins, 256, part, out.data, packing, shape, pages, splits, sinks, listed, count)

    def _blocks_of(self, span: Span, batch: Batch) -> torch.Tensor:
        """The blocks of a text, int64."""
        n_blocks = -(-span.length // BLOCK_TOKENS)
        return torch.from_numpy(batch.tables[span.line, :n_blocks].astype(np.int64)).to(self.device)

    @staticmethod
    def _attend_long(
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        span: Span,
        table: torch.Tensor,
        heads: Heads,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Many rows of one text, (rows, heads * size): torch's fused attention over the text's gathered blocks."""
        if sinks is not None or not is_plain(heads):
            return attend_text(q, keys, values, span.length, table, heads, sinks)
        group = heads.head_count // heads.head_count_kv

        def text(cache: torch.Tensor) -> torch.Tensor:  # -> (heads, tokens, size)
            return cache[table].transpose(0, 1).flatten(1, 2)[:, : span.length].repeat_interleave(group, 0)

        rows = span.last - span.first
        query = q.view(rows, heads.head_count, heads.key_length).transpose(0, 1).half()
        attend: Any = functional.scaled_dot_product_attention
        arguments = query[None], text(keys)[None], text(values)[None]
        if rows == span.length:
            out = attend(*arguments, is_causal=True, scale=heads.scale)
        else:
            from torch.nn.attention.bias import causal_lower_right

            out = attend(*arguments, attn_mask=causal_lower_right(rows, span.length), scale=heads.scale)
        result: torch.Tensor = out[0].transpose(0, 1).flatten(1).float()
        return result

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

    def _cache(self, layer: int, heads: Heads) -> tuple[torch.Tensor, torch.Tensor]:
        if layer not in self.caches:
            shape = heads.head_count_kv, BLOCK_TOKENS
            keys = self._blocks.array((*shape, heads.key_length), torch.float16)
            self.caches[layer] = keys, self._blocks.array((*shape, heads.value_length), torch.float16)
        return self.caches[layer]


def attend_text(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    length: int,
    table: torch.Tensor,
    heads: Heads,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """The last rows of a text of `length` tokens, (rows, heads * size): for heads that no fused attention takes. `table`: the
    text's blocks in `keys` and `values`, (blocks, kv heads, 64, size)."""
    rows, kv = len(q), heads.head_count_kv
    query = q.view(rows, kv, heads.head_count // kv, heads.key_length).permute(1, 2, 0, 3) * heads.scale
    step = max(1, SCORES // (heads.head_count * length))
    parts = [
        _attend_part(query[:, :, first : first + step], keys, values, length - rows + first, table, heads, sinks)
        for first in range(0, rows, step)
    ]
    return torch.cat(parts, 2).permute(2, 0, 1, 3).flatten(1)


def _attend_part(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    position: int,
    table: torch.Tensor,
    heads: Heads,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Rows from `position` on, (kv heads, group, rows, size), against the blocks of what they see."""
    rows = query.shape[2]
    start = max(0, position + 1 - heads.window) // BLOCK_TOKENS * BLOCK_TOKENS if heads.window else 0
    end = position + rows
    seen = table[start // BLOCK_TOKENS : -(-end // BLOCK_TOKENS)]
    key, value = (cache[seen].transpose(0, 1).flatten(1, 2)[:, None, : end - start].float() for cache in (keys, values))
    scores = query @ key.transpose(-1, -2)
    if heads.softcap:
        scores = torch.tanh(scores / heads.softcap) * heads.softcap
    own = torch.arange(position, end, device=query.device)[:, None]
    tokens = torch.arange(start, end, device=query.device)
    hidden = tokens > own
    if heads.window:
        hidden |= tokens <= own - heads.window
    scores.masked_fill_(hidden, -torch.inf)
    if sinks is not None:
        sink = sinks.view(*query.shape[:2], 1, 1).expand(-1, -1, rows, 1)
        return torch.cat((scores, sink), -1).softmax(-1)[..., :-1] @ value
    return scores.softmax(-1) @ value
