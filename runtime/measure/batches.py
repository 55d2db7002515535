"""Batches for an executor without a tokenizer or a scheduler: random tokens, each sequence with blocks of its own."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from runtime.core import BLOCK_TOKENS, Batch, FloatArray, IntArray


class Reader(Protocol):
    """What texts need of an executor."""

    n_vocab: int
    max_rows: int

    def forward(self, batch: Batch) -> FloatArray:
        """Logits."""


class Texts:
    """So many texts of up to `length` tokens, side by side in the cache."""

    def __init__(self, executor: Reader, count: int, length: int) -> None:
        self.count = count
        self._executor = executor
        blocks = -(-length // BLOCK_TOKENS)
        self._tables = np.arange(count * blocks, dtype=np.int32).reshape(count, blocks)
        self._rng = np.random.default_rng(0)

    def read(self, start: int, length: int) -> None:
        """Tokens [start, start + length) of the first text, in as few steps as there can be."""
        for first in range(start, start + length, self._executor.max_rows):
            self._executor.forward(self.prompt(first, min(self._executor.max_rows, start + length - first)))

    def blocks_before(self, length: int) -> list[int]:
        """Numbers of the blocks that hold the first `length` tokens of all texts."""
        return [int(number) for number in self._tables[:, : -(-length // BLOCK_TOKENS)].ravel()]

    def prompt(self, start: int, rows: int) -> Batch:
        """The next `rows` tokens of the first text."""
        positions = np.arange(start, start + rows, dtype=np.int32)
        return Batch(self._tokens(rows), positions, np.zeros(rows, np.int32), self._tables, np.array([rows - 1], np.int32))

    def next(self, position: int) -> Batch:
        """One token of each text."""
        each = np.arange(self.count, dtype=np.int32)
        return Batch(self._tokens(self.count), np.full(self.count, position, np.int32), each, self._tables, each)

    def _tokens(self, count: int) -> IntArray:
        return self._rng.integers(0, self._executor.n_vocab, count).astype(np.int32)
