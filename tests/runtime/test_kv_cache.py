"""runtime.kv_cache: blocks are shared and reused, never lost and never given twice."""

from __future__ import annotations

import dataclasses
import random

import pytest

from runtime.core import BLOCK_TOKENS, blocks_for
from runtime.kv_cache import MIN_COPY, BlockPool, BlockTable, Opened


def open_(pool: BlockPool, tokens: list[int], spare: int = 0) -> Opened:
    opened = pool.open(tokens, spare)
    assert opened is not None
    return opened


def write(pool: BlockPool, tokens: list[int]) -> None:
    """A sequence comes, is computed and ends."""
    pool.close(open_(pool, tokens).table, tokens, len(tokens))


def text(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(1000), k=count)


def test_a_new_text_finds_nothing() -> None:
    pool = BlockPool(8)
    opened = open_(pool, text(130))
    assert (len(opened.table.blocks), opened.cached, opened.copy) == (3, 0, None)
    assert (pool.n_blank, pool.n_idle) == (5, 0)


def test_full_blocks_are_shared_with_a_running_sequence() -> None:
    pool, tokens = BlockPool(8), text(150)
    first = open_(pool, tokens)
    pool.seal(first.table, tokens, 130)
    second = open_(pool, tokens[:140] + [5000] * 10)
    assert second.cached == 128
    assert second.table.blocks[:2] == first.table.blocks[:2]
    assert second.table.blocks[2] != first.table.blocks[2]
    assert pool.n_free == 8 - 4


def test_the_last_token_is_left_to_compute() -> None:
    pool, tokens = BlockPool(8), text(128)
    write(pool, tokens)
    again = open_(pool, tokens)
    assert again.cached == 127
    assert again.copy is not None
    assert again.copy[1] == again.table.blocks[1]


def test_a_partly_equal_block_is_copied() -> None:
    pool, tokens = BlockPool(8), text(100)
    write(pool, tokens)
    more = open_(pool, [*tokens, *text(20, seed=1)])
    assert more.cached == 100
    assert more.copy is not None
    assert more.copy[1] == more.table.blocks[1] != more.copy[0]
    less = open_(pool, tokens[:70] + [5000] * 9)
    assert less.cached == 70


def test_a_few_equal_tokens_are_not_worth_a_copy() -> None:
    pool, tokens = BlockPool(8), text(30)
    write(pool, tokens)
    other = open_(pool, tokens[: MIN_COPY - 1] + [5000] * 9)
    assert (other.cached, other.copy) == (0, None)


def test_the_same_block_after_another_text_is_not_the_same() -> None:
    pool, block = BlockPool(8), text(64)
    write(pool, text(64, seed=1) + block)
    assert open_(pool, text(64, seed=2) + block + [1]).cached == 0


def test_only_computed_tokens_are_known() -> None:
    pool, tokens = BlockPool(8), text(128)
    pool.close(open_(pool, tokens).table, tokens, 80)
    assert open_(pool, tokens).cached == 80


def test_least_recently_used_goes_first_and_ends_before_beginnings() -> None:
    pool = BlockPool(4)
    old, new = text(128, seed=1), text(128, seed=2)
    write(pool, old)
    write(pool, new)
    write(pool, text(30, seed=3))  # takes one block: the end of `old`
    assert open_(pool, [*old, 1]).cached == 64


def test_use_makes_young() -> None:
    pool = BlockPool(4)
    texts = [text(64, seed=seed) for seed in range(4)]
    for tokens in texts:
        write(pool, tokens)
    write(pool, [*texts[0], 1])  # takes a block for its last token, of texts[1], and makes texts[0] young
    write(pool, text(3, seed=9))
    assert open_(pool, [*texts[0], 7]).cached == 64


def test_spare_blocks_are_respected_and_nothing_changes() -> None:
    pool = BlockPool(4)
    assert pool.open(text(192), spare=2) is None
    assert pool.open(text(320)) is None
    assert (pool.n_blank, pool.n_idle) == (4, 0)
    open_(pool, text(192), spare=1)


def test_idle_blocks_that_are_reused_do_not_count_as_free() -> None:
    pool, tokens = BlockPool(3), text(128)
    write(pool, tokens)
    assert pool.open([*tokens, *text(60, seed=1)], spare=1) is None
    assert open_(pool, [*tokens, *text(60, seed=1)]).cached == 128


def test_a_source_that_is_needed_itself_is_not_copied() -> None:
    pool, tokens = BlockPool(1), text(40)
    write(pool, tokens)
    opened = open_(pool, [*tokens, 1])
    assert (opened.cached, opened.copy, opened.table.blocks) == (0, None, [0])


def test_growth() -> None:
    pool = BlockPool(3)
    table = open_(pool, text(64)).table
    assert pool.grow(table, 64)
    assert len(table.blocks) == 1
    assert pool.grow(table, 192)
    assert (table.capacity, pool.n_free) == (192, 0)
    assert not pool.grow(table, 193)
    assert len(table.blocks) == 3


@dataclasses.dataclass(eq=False)
class Live:
    tokens: list[int]
    table: BlockTable
    computed: int


@pytest.mark.parametrize("seed", range(12))
def test_no_block_is_lost_or_given_twice(seed: int) -> None:
    """Random sequences come, grow and go; every block always holds what its readers believe it holds."""
    chance = random.Random(seed)
    n_blocks = chance.choice((3, 8, 40))
    pool = BlockPool(n_blocks)
    stored: list[list[int]] = [[] for _ in range(n_blocks)]  # what was written into each block
    bases = [[chance.randrange(50) for _ in range(300)] for _ in range(3)]
    live: list[Live] = []

    def compute(each: Live, end: int) -> None:
        for position in range(each.computed, end):
            block, place = each.table.blocks[position // BLOCK_TOKENS], position % BLOCK_TOKENS
            del stored[block][place:]
            assert len(stored[block]) == place
            stored[block].append(each.tokens[position])
        each.computed = end
        pool.seal(each.table, each.tokens, end)

    for _ in range(400):
        action = chance.random()
        if action < 0.35:
            tokens = chance.choice(bases)[: chance.randint(1, 150)] + [chance.randrange(50) for _ in range(chance.randint(0, 9))]
            opened = pool.open(tokens, spare=chance.randint(0, 1))
            if opened is not None:
                assert opened.cached < len(tokens)
                if opened.copy is not None:
                    stored[opened.copy[1]] = list(stored[opened.copy[0]])
                live.append(Live(tokens, opened.table, opened.cached))
        elif live and action < 0.8:
            each = chance.choice(live)
            if each.computed == len(each.tokens):
                each.tokens += [chance.randrange(50) for _ in range(chance.randint(1, 70))]
            if pool.grow(each.table, len(each.tokens)):
                compute(each, chance.randint(each.computed, len(each.tokens)))
        elif live:
            each = live.pop(chance.randrange(len(live)))
            pool.close(each.table, each.tokens, each.computed)
        check(pool, live, stored)
    for each in live:
        pool.close(each.table, each.tokens, each.computed)
    assert pool.n_free == n_blocks


def check(pool: BlockPool, live: list[Live], stored: list[list[int]]) -> None:
    held = {block for each in live for block in each.table.blocks}
    assert pool.n_free == pool.n_blocks - len(held)
    writable = [block for each in live for block in each.table.blocks[len(each.table.keys) :]]
    assert len(writable) == len(set(writable))
    shared = {block for each in live for block in each.table.blocks[: len(each.table.keys)]}
    assert not shared & set(writable)
    for each in live:
        assert len(set(each.table.blocks)) == len(each.table.blocks) >= blocks_for(each.computed)
        for index, block in enumerate(each.table.blocks):
            expected = each.tokens[index * BLOCK_TOKENS : min((index + 1) * BLOCK_TOKENS, each.computed)]
            assert stored[block][: len(expected)] == expected


def test_a_pool_grows() -> None:
    pool = BlockPool(2)
    opened = pool.open(range(100))
    assert opened is not None
    table = opened.table
    assert not pool.grow(table, 200)
    pool.extend(5)
    assert pool.grow(table, 300)
    assert sorted(table.blocks) == [0, 1, 2, 3, 4]
    pool.extend(3)
    assert (pool.n_blocks, pool.n_free) == (5, 0)
