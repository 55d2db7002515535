"""runtime.scheduler: who runs, and what goes into a step."""

from __future__ import annotations

import random

import numpy as np

from runtime.core import BLOCK_TOKENS
from runtime.scheduler import FEW, MIXED_ROWS, READERS, Scheduler, Sequence, Step


def make(n_blocks: int = 100, rows: int = 128, outputs: int = 64, ctx: int = 2048) -> Scheduler:
    return Scheduler(n_blocks, rows, outputs, ctx)


def sequence(number: int, length: int) -> Sequence:
    return Sequence(number, [number * 10_000 + place for place in range(length)])


def carry_out(scheduler: Scheduler, step: Step | None, seconds: float = 0.01) -> None:
    assert step is not None
    scheduler.advance(step, seconds)
    for each in step.ready:
        each.tokens.append(each.id * 10_000 + len(each.tokens))


def shares(step: Step | None) -> dict[int, int]:
    assert step is not None
    return {each.id: count for each, count in step.rows}


def started(scheduler: Scheduler, *lengths: int) -> list[Sequence]:
    """Sequences that are all writing."""
    sequences = [sequence(number, length) for number, length in enumerate(lengths, 1)]
    for each in sequences:
        scheduler.add(each)
    while not all(each.pending == 1 and each.computed for each in sequences):
        carry_out(scheduler, scheduler.schedule())
    return sequences


def test_nothing_to_do() -> None:
    assert make().schedule() is None


def test_a_prompt_is_read_in_pieces() -> None:
    scheduler, only = make(), sequence(1, 300)
    scheduler.add(only)
    sizes = []
    for _ in range(4):
        step = scheduler.schedule()
        assert step is not None
        sizes.append((len(step.batch.tokens), len(step.batch.outputs)))
        carry_out(scheduler, step)
    assert sizes == [(128, 0), (128, 0), (44, 1), (1, 1)]


def test_rows_of_a_batch() -> None:
    scheduler = make()
    writers = started(scheduler, 70, 5)
    reader = sequence(3, 20)
    scheduler.add(reader)
    step = scheduler.schedule()
    assert step is not None
    batch = step.batch
    place = 0
    for each, count in step.rows:
        table = each.table
        assert table is not None
        for position in range(each.computed, each.computed + count):
            assert batch.tokens[place] == each.tokens[position]
            assert batch.positions[place] == position
            line = batch.tables[batch.sequences[place]]
            assert line[position // BLOCK_TOKENS] == table.blocks[position // BLOCK_TOKENS]
            place += 1
    assert place == len(batch.tokens) == 22
    assert [each.id for each in step.ready] == [writers[0].id, writers[1].id, reader.id]
    assert batch.outputs.tolist() == [0, 1, 21]
    assert {array.dtype for array in (batch.tokens, batch.positions, batch.sequences, batch.tables, batch.outputs)} == {
        np.dtype(np.int32)
    }


def test_writers_are_in_every_step_and_a_long_prompt_holds_them_up_little() -> None:
    scheduler = make(rows=512)
    started(scheduler, 10, 10, 10)
    scheduler.add(sequence(9, 2000))
    step = scheduler.schedule()
    assert shares(step) == {1: 1, 2: 1, 3: 1, 9: MIXED_ROWS}
    sizes = []
    while shares(step).get(9, 0) != 1:
        assert step is not None
        assert {1, 2, 3} <= set(shares(step))
        sizes.append(shares(step)[9])
        carry_out(scheduler, step, seconds=0.01 + sizes[-1] * 1e-3)
        step = scheduler.schedule()
    assert sizes[1] == 2 * MIXED_ROWS
    assert set(sizes[4:-1]) <= set(range(135, 155))  # 0.15 s of prompt at 1 ms a row


def test_a_slow_step_is_followed_by_a_smaller_one() -> None:
    scheduler = make(rows=512)
    started(scheduler, 10)
    scheduler.add(sequence(9, 2000))
    for _ in range(3):
        carry_out(scheduler, scheduler.schedule())
    assert shares(scheduler.schedule())[9] == 8 * MIXED_ROWS
    for size in (4 * MIXED_ROWS, 2 * MIXED_ROWS, MIXED_ROWS, MIXED_ROWS):
        carry_out(scheduler, scheduler.schedule(), seconds=1.0)
        assert shares(scheduler.schedule())[9] == size


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    scheduler = make()
    scheduler.add(sequence(1, 2000))
    carry_out(scheduler, scheduler.schedule())
    scheduler.add(sequence(2, 30))
    assert shares(scheduler.schedule()) == {1: 98, 2: 30}


def test_a_few_tokens_are_never_held_up() -> None:
    scheduler = make(rows=64)
    writers = started(scheduler, 5, 5)
    scheduler.add(sequence(3, 1000))
    carry_out(scheduler, scheduler.schedule())
    writers[0].tokens += [1] * (FEW - writers[0].pending)
    step = scheduler.schedule()
    assert step is not None
    assert shares(step) == {1: FEW, 2: 1, 3: step.reading}
    assert step.reading >= MIXED_ROWS


def test_the_tokens_of_many_share_a_step() -> None:
    scheduler = make(rows=8)
    writers = started(scheduler, 3, 3, 3, 3)
    for each in writers:
        each.tokens += [1] * 3
    step = scheduler.schedule()
    assert shares(step) == {1: 4, 2: 2, 3: 1, 4: 1}
    carry_out(scheduler, step)
    assert sum(shares(scheduler.schedule()).values()) == 8


def test_the_oldest_prompt_always_gets_half() -> None:
    scheduler = make()
    for number, length in ((1, 2000), (2, 1000), (3, 500)):
        scheduler.add(sequence(number, length))
    assert shares(scheduler.schedule()) == {1: 64, 3: 64}


def test_long_prompts_are_not_all_read_at_once_but_short_ones_are() -> None:
    scheduler = make(n_blocks=1000)
    for number in range(1, 11):
        scheduler.add(sequence(number, 1000))
    scheduler.schedule()
    assert len(scheduler.running) == READERS
    scheduler = make(n_blocks=1000)
    for number in range(1, 11):
        scheduler.add(sequence(number, 8))
    assert len(shares(scheduler.schedule())) == 10


def test_no_more_run_than_there_are_outputs() -> None:
    scheduler = make(outputs=3)
    for number in range(5):
        scheduler.add(sequence(number, 4))
    scheduler.schedule()
    assert (len(scheduler.running), len(scheduler.waiting)) == (3, 2)
    scheduler.remove(scheduler.running[0])
    scheduler.schedule()
    assert [each.id for each in scheduler.running] == [1, 2, 3]


def test_nobody_overtakes_one_that_does_not_fit() -> None:
    scheduler = make(n_blocks=10)
    for number, length in ((1, 500), (2, 300), (3, 5)):
        scheduler.add(sequence(number, length))
    scheduler.schedule()
    assert [each.id for each in scheduler.running] == [1]
    scheduler.schedule()
    assert [each.id for each in scheduler.waiting] == [2, 3]
    scheduler.remove(scheduler.running[0])
    scheduler.schedule()
    assert [each.id for each in scheduler.running] == [2, 3]


def test_the_youngest_makes_room_and_comes_back_first() -> None:
    scheduler = make(n_blocks=6)
    old, young = started(scheduler, 120, 120)
    scheduler.add(late := sequence(3, 300))
    for _ in range(60):
        carry_out(scheduler, scheduler.schedule())
    assert scheduler.running == [old, young]
    for _ in range(20):
        carry_out(scheduler, scheduler.schedule())
    assert scheduler.running == [old]
    assert list(scheduler.waiting) == [young, late]
    assert (young.table, young.computed, young.line) == (None, 0, -1)
    scheduler.remove(old)
    step = scheduler.schedule()
    assert step is not None
    assert step.admitted == [young]
    assert young.cached > 100  # what nobody took in the meantime


def test_restart_with_other_tokens() -> None:
    scheduler = make()
    (only,) = started(scheduler, 200)
    scheduler.restart(only, only.tokens[:100] + only.tokens[150:])
    step = scheduler.schedule()
    assert shares(step) == {1: len(only.tokens) - 100}
    assert only.cached == 100


def test_remove_one_that_waits() -> None:
    scheduler = make(n_blocks=4)
    scheduler.add(sequence(1, 200))
    scheduler.add(waits := sequence(2, 200))
    scheduler.schedule()
    scheduler.remove(waits)
    assert not scheduler.waiting
    assert scheduler.running[0].id == 1


def test_random_life() -> None:
    """Whatever comes and goes: steps stay within their limits, blocks are never lost, and everybody gets on."""
    chance = random.Random(5)
    scheduler = make(n_blocks=12, rows=48, outputs=6, ctx=600)
    alive: dict[int, Sequence] = {}
    for number in range(1500):
        if chance.random() < 0.1 and len(alive) < 12:
            alive[number] = sequence(number, chance.choice((3, 40, 200, 500)))
            scheduler.add(alive[number])
        step = scheduler.schedule()
        if step is None:
            continue
        assert 0 < len(step.batch.tokens) <= 48
        assert len(step.batch.outputs) <= 6
        carry_out(scheduler, step, seconds=chance.random() / 10)
        oldest = min(scheduler.running, key=lambda each: each.arrival)
        assert oldest in [each for each, _ in step.rows]
        for each in list(alive.values()):
            if len(each.tokens) >= 600 or chance.random() < 0.005:
                scheduler.remove(alive.pop(each.id))
        held = {block for each in scheduler.running if each.table for block in each.table.blocks}
        assert scheduler.pool.n_free == 12 - len(held)
        assert len({each.line for each in scheduler.running}) == len(scheduler.running)
    for each in alive.values():
        scheduler.remove(each)
    assert scheduler.pool.n_free == 12
