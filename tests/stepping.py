"""Drive an executor by hand: one sequence with a block table of its own. And an engine, through one request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.core import BLOCK_TOKENS, Batch
from runtime.engine import Engine, Job
from runtime.execute.cpu import CpuExecutor, load
from runtime.frames import Done, Generate, Reply, Token


def open_model(
    path: Path,
    *,
    threads: int = 2,
    ctx: int = 1024,
    rows: int = 128,
    parallel: int = 4,
    adapters: Sequence[Path] = (),
    kind: str = "f16",
) -> CpuExecutor:
    return load(
        path,
        num_ctx=ctx,
        num_parallel=parallel,
        num_batch=rows,
        num_thread=threads,
        kv_cache_type=kind,
        adapters=[str(adapter) for adapter in adapters],
        progress=lambda phase, done, total: None,
    )


class Text:
    """One sequence of an executor with a block table of its own."""

    def __init__(self, executor: CpuExecutor, blocks: list[int]) -> None:
        self.executor = executor
        self.table = np.array([blocks], np.int32)
        self.length = 0

    def feed(self, tokens: list[int]) -> np.ndarray:
        """Append tokens in one step; logits of each, (tokens, vocabulary), a copy."""
        n = len(tokens)
        positions = np.arange(self.length, self.length + n, dtype=np.int32)
        rows = np.arange(n, dtype=np.int32)
        batch = Batch(np.array(tokens, np.int32), positions, np.zeros(n, np.int32), self.table, rows)
        self.length += n
        return self.executor.forward(batch).copy()


def blocks_for(tokens: int, first: int = 1) -> list[int]:
    return list(range(first, first + -(-tokens // BLOCK_TOKENS)))


def answer(engine: Engine, request: Generate) -> tuple[str, Done]:
    """The whole text of one request, with nothing beside it, and how it ended."""
    job = engine.prepare(request)
    assert isinstance(job, Job)
    replies: list[Reply] = engine.submit(job)
    while engine.busy:
        replies += engine.step()
    last = replies[-1]
    assert isinstance(last, Done)
    return "".join(reply.text for reply in replies if isinstance(reply, Token)), last
