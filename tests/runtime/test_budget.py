"""runtime.execute.budget: contexts by memory."""

from __future__ import annotations

import pytest

from runtime.execute.budget import DEFAULT_CONTEXT, PARALLEL, Budget, batch

BLOCK = 6 << 20  # bytes: as of Qwen3-30B-A3B
GIB = 1 << 30


@pytest.mark.parametrize(
    ("memory", "trained", "context"),
    [
        (0, 40960, DEFAULT_CONTEXT),
        (GIB // 4, 40960, DEFAULT_CONTEXT),
        (2 * GIB, 40960, 8192),
        (7 * GIB, 40960, 32768),
        (100 * GIB, 40960, 40960),
        (100 * GIB, 1 << 20, 262144),
        (20 * GIB, 1 << 20, 65536),
        (100 * GIB, 2048, 2048),
        (0, 2048, 2048),
    ],
)
def test_a_default_context_takes_half_of_the_memory_at_most(memory: int, trained: int, context: int) -> None:
    budget = Budget(BLOCK, trained, memory)
    assert budget.context() == context
    assert context <= DEFAULT_CONTEXT or budget.context_bytes(context) <= memory / 2


def test_sequences_that_are_promised_a_context() -> None:
    assert Budget(BLOCK, 40960, 0).parallel(32768) == PARALLEL
    assert Budget(BLOCK, 40960, 100 * GIB).parallel(32768) == PARALLEL
    assert Budget(BLOCK, 40960, 14 * GIB).parallel(32768) == 2
    assert Budget(BLOCK, 40960, 1 * GIB).parallel(32768) == 1


def test_blocks_stay_within_the_memory() -> None:
    rich, poor = Budget(BLOCK, 40960, 100 * GIB), Budget(BLOCK, 40960, 1 * GIB)
    assert rich.promised(4096, 4) == 4 * 64 + 1
    assert rich.blocks(4096, 4) > rich.promised(4096, 4)
    assert poor.promised(40960, 4) == poor.blocks(40960, 4) == int(0.9 * GIB) // BLOCK
    assert Budget(BLOCK, 40960, 1).blocks(4096, 1) == 1


def test_a_batch_by_the_context() -> None:
    assert [batch(num_ctx) for num_ctx in (100, 4096, 4097, 32768, 32769)] == [512, 512, 1024, 1024, 2048]
