"""Which sequences run, and which of their tokens go into the next step.

Sequences wait in the order of their arrival and run as soon as their prompt fits the cache. Every step carries a row for
each sequence that is writing, or a few where a grammar has forced the next tokens, and in the rows that are left, pieces of
the prompts that are still being read. When the cache is full, the youngest sequence gives its blocks back and waits again;
what it had is computed anew, or found in the cache.
"""

from __future__ import annotations

import dataclasses
from collections import deque

import numpy as np

from runtime.checkpoints import Checkpoints
from runtime.core import BLOCK_TOKENS, Batch, IntArray, blocks_for
from runtime.kv_cache import BlockPool, BlockTable, Opened

MIXED_SECONDS = 0.15  # by how much reading prompts may lengthen the steps of those who write
MIXED_ROWS = 32  # prompt rows of such a step at the least
FEW = 8  # rows that a sequence gets in every step, as one does that writes
READERS = 4  # long prompts that are read at the same time


@dataclasses.dataclass(eq=False, slots=True)
class Sequence:
    """Tokens and what is known of their keys and values. The engine appends to `tokens`, the scheduler writes the rest."""

    id: int
    tokens: list[int]
    arrival: int = 0
    computed: int = 0  # leading tokens that are in the cache
    cached: int = 0  # of these, found there when the sequence was last admitted
    stops: list[int] = dataclasses.field(default_factory=list)  # where its state is to be kept before it writes, falling
    rolling: bytes | None = None  # digest of the text whose state was kept while it wrote
    table: BlockTable | None = None  # while it runs
    line: int = -1  # of the batch's tables, while it runs

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.computed

    @property
    def reads(self) -> bool:
        """Whether it has to wait for its share of a step."""
        return self.pending > FEW


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One forward pass. `ready`: the sequences whose next token the logits give, in the order of the batch's outputs."""

    batch: Batch
    rows: list[tuple[Sequence, int]]  # how many tokens of each
    ready: list[Sequence]
    reading: int  # rows of sequences that have more than a few to go
    admitted: list[Sequence]  # that run from this step on
    copies: list[tuple[int, int]]  # blocks to copy, (from, to), one after the other, before the pass
    states: list[tuple[int, int]]  # and states


class Scheduler:
    """Owns the block pool. `max_outputs`: sequences that may run; `longest`: tokens that each may ever have; `checkpoints`:
    states that can be kept for later, of a model whose layers have some."""

    def __init__(self, n_blocks: int, max_rows: int, max_outputs: int, longest: int, checkpoints: int = 0) -> None:
        self._checkpoints = Checkpoints(max_outputs, checkpoints) if checkpoints else None
        self._states: list[tuple[int, int]] = []  # to be copied before the next pass
        self.pool = BlockPool(n_blocks, self._checkpoints)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # by arrival
        self._max_rows = max_rows
        self._max_running = min(max_outputs, max_rows)
        self._arrivals = 0
        self._refused: tuple[Sequence, int] | None = None  # who did not fit, and how many blocks there were for it
        self._mixed_rows = MIXED_ROWS  # prompt rows of a step while others write; follows the clock
        self._writing_seconds = 0.0  # of a step that reads no prompt
        self._lines = list(range(self._max_running - 1, -1, -1))
        self._tables: IntArray = np.zeros((self._max_running, blocks_for(longest)), np.int32)
        self._buffer: IntArray = np.zeros((4, max_rows), np.int32)
        self._places: IntArray = np.arange(longest, dtype=np.int32)

    def add(self, sequence: Sequence) -> None:
        """A new sequence, behind all others."""
        sequence.arrival = self._arrivals
        self._arrivals += 1
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence; its blocks are free."""
        if sequence.table is None:
            self.waiting.remove(sequence)
        else:
            self._stop(sequence)

    def restart(self, sequence: Sequence, tokens: list[int]) -> None:
        """Let a running sequence go on with other tokens: what is not in the cache is read again."""
        self._suspend(sequence)
        sequence.tokens = tokens

    def schedule(self) -> Step | None:
        """The next step, or None if there is nothing to do."""
        self._grow()
        opened = self._admit()
        return self._step(opened) if self.running else None

    def advance(self, step: Step, seconds: float) -> None:
        """The step has been carried out, in so many seconds: its tokens are in the cache."""
        for sequence, rows in step.rows:
            sequence.computed += rows
            assert sequence.table is not None
            self.pool.seal(sequence.table, sequence.tokens, sequence.computed)
            if self._checkpoints is not None:
                self._keep_state(sequence, self._checkpoints)
        self._learn(step.reading, len(step.batch.tokens) - step.reading, seconds)

    def _learn(self, reading: int, writing: int, seconds: float) -> None:
        """Bring mixed steps to the length that they should have: rows cost less, each, the more there are."""
        if not reading:
            self._writing_seconds = (self._writing_seconds + seconds) / 2 if self._writing_seconds else seconds
        elif writing and reading >= self._mixed_rows:
            ratio = (MIXED_SECONDS + self._writing_seconds) / max(seconds, 1e-6)
            rows = int(reading * min(max(ratio, 0.5), 2.0))
            self._mixed_rows = max(MIXED_ROWS, min(rows, self._max_rows))

    # ------------------------------------------------------------ states

    def _keep_state(self, sequence: Sequence, checkpoints: Checkpoints) -> None:
        """Where a sequence has come to a stop, or while it writes to the end of a block, let later ones go on from there."""
        table = sequence.table
        assert table is not None
        reading = bool(sequence.stops)
        if reading and sequence.computed == sequence.stops[-1]:
            sequence.stops.pop()
        elif reading or not sequence.computed or sequence.computed % BLOCK_TOKENS:
            return
        place = checkpoints.put(table.keys[-1], None if reading else sequence.rolling)
        if not reading:
            sequence.rolling = table.keys[-1]
        if place is not None:
            self._states.append((sequence.line, place))

    def _stops(self, opened: Opened, n_tokens: int) -> list[int]:
        """Where the state of a text of so many tokens is to be kept: where it parts from texts that are known, and at the end of
        its last whole block."""
        ends = {opened.known, (n_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS}
        return sorted((end for end in ends if end > opened.cached), reverse=True)

    def _until_stop(self, sequence: Sequence, count: int) -> int:
        """So many tokens, or as many as there are before its state is to be kept."""
        if self._checkpoints is None:
            return count
        at = sequence.computed
        stop = sequence.stops[-1] if sequence.stops else (at // BLOCK_TOKENS + 1) * BLOCK_TOKENS
        return min(count, stop - at)

    # ------------------------------------------------------------ who runs

    def _grow(self) -> None:
        """Room for the next token of all who run, the oldest first."""
        for sequence in list(self.running):
            table = sequence.table
            if table is None or len(sequence.tokens) <= table.capacity:
                continue
            while not self.pool.grow(table, len(sequence.tokens)):
                youngest = self.running[-1]
                self._suspend(youngest)
                if youngest is sequence:
                    break
            else:
                self._write_line(sequence)

    def _admit(self) -> list[tuple[Sequence, Opened]]:
        admitted: list[tuple[Sequence, Opened]] = []
        while self.waiting and len(self.running) < self._max_running and self._has_time():
            sequence = self.waiting[0]
            # a block for each running sequence, so that none need be suspended again at once
            spare = len(self.running)
            if self._refused == (sequence, self.pool.n_free - spare):
                break
            opened = self.pool.open(sequence.tokens, spare)
            if opened is None:
                self._refused = (sequence, self.pool.n_free - spare)
                break
            self._refused = None
            self.waiting.popleft()
            self._start(sequence, opened)
            admitted.append((sequence, opened))
        return admitted

    def _start(self, sequence: Sequence, opened: Opened) -> None:
        sequence.table, sequence.computed, sequence.cached = opened.table, opened.cached, opened.cached
        sequence.line = self._lines.pop()
        self._write_line(sequence)
        sequence.stops = self._stops(opened, len(sequence.tokens)) if self._checkpoints is not None else []
        if opened.state is not None:
            self._states.append((opened.state, sequence.line))
        at = len(self.running)
        while at and self.running[at - 1].arrival > sequence.arrival:
            at -= 1
        self.running.insert(at, sequence)

    def _has_time(self) -> bool:
        """Whether another prompt could be read now. Later it may find more of itself in the cache."""
        reading = [sequence.pending for sequence in self.running if sequence.reads]
        return len(reading) < READERS or sum(reading) + len(self.running) < self._budget()

    def _stop(self, sequence: Sequence) -> None:
        assert sequence.table is not None
        self.running.remove(sequence)
        self.pool.close(sequence.table, sequence.tokens, sequence.computed)
        self._lines.append(sequence.line)
        sequence.table, sequence.line, sequence.computed = None, -1, 0

    def _suspend(self, sequence: Sequence) -> None:
        """Back to those who wait, at its place by arrival."""
        self._stop(sequence)
        at = 0
        while at < len(self.waiting) and self.waiting[at].arrival < sequence.arrival:
            at += 1
        self.waiting.insert(at, sequence)

    def _write_line(self, sequence: Sequence) -> None:
        assert sequence.table is not None
        blocks = sequence.table.blocks
        self._tables[sequence.line, : len(blocks)] = blocks

    # ------------------------------------------------------------ what is computed

    def _step(self, opened: list[tuple[Sequence, Opened]]) -> Step:
        writing = self._writing()
        used = sum(count for _, count in writing)
        rows = writing + self._shares([sequence for sequence in self.running if sequence.reads], used)
        batch, ready = self._batch(rows)
        copies = [each.copy for _, each in opened if each.copy is not None]
        states, self._states = self._states, []
        return Step(batch, rows, ready, len(batch.tokens) - used, [sequence for sequence, _ in opened], copies, states)

    def _writing(self) -> list[tuple[Sequence, int]]:
        """A row for each sequence that needs few, and the others of theirs as far as there is room."""
        writing = [sequence for sequence in self.running if not sequence.reads]
        spare = self._max_rows - len(writing)
        rows = []
        for sequence in writing:
            more = self._until_stop(sequence, min(sequence.pending, 1 + spare)) - 1
            spare -= more
            rows.append((sequence, 1 + more))
        return rows

    def _batch(self, rows: list[tuple[Sequence, int]]) -> tuple[Batch, list[Sequence]]:
        tokens, positions, lines, outputs = self._buffer
        ready: list[Sequence] = []
        end = width = height = 0
        for sequence, count in rows:
            start, end, at, stop = end, end + count, sequence.computed, sequence.computed + count
            if count == 1:
                tokens[start], positions[start], lines[start] = sequence.tokens[at], at, sequence.line
            else:
                tokens[start:end] = sequence.tokens[at:stop]
                positions[start:end] = self._places[at:stop]
                lines[start:end] = sequence.line
            if stop == len(sequence.tokens):
                outputs[len(ready)] = end - 1
                ready.append(sequence)
            width, height = max(width, stop), max(height, sequence.line + 1)
        tables = self._tables[:height, : blocks_for(width)]
        return Batch(tokens[:end], positions[:end], lines[:end], tables, outputs[: len(ready)]), ready

    def _budget(self) -> int:
        """Rows that a step may have while others write."""
        writing = [sequence.pending for sequence in self.running if not sequence.reads]
        return min(self._max_rows, sum(writing) + self._mixed_rows) if writing else self._max_rows

    def _shares(self, reading: list[Sequence], used: int) -> list[tuple[Sequence, int]]:
        """How many rows of each prompt: half for the oldest, so that it gets on; then the shortest first, as they end soonest."""
        budget = self._budget() - used
        if not reading or budget <= 0:
            return []
        oldest = reading[0]
        left = budget - min(oldest.pending, budget - budget // 2)
        shares = []
        for sequence in sorted(reading[1:], key=lambda sequence: sequence.pending):
            count = self._until_stop(sequence, min(sequence.pending, left))
            if count > 0:
                shares.append((sequence, count))
                left -= count
                budget -= count
        return [(oldest, self._until_stop(oldest, min(oldest.pending, budget))), *shares]
