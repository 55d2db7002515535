"""runtime.checkpoints, and texts that go on from kept states, by scheduler and engine."""

from __future__ import annotations

import random

import pytest
from toy_model import RecurrentExecutor, Runs, alone, chaos, make_tokenizer

from runtime.checkpoints import Checkpoints
from runtime.core import BLOCK_TOKENS
from runtime.frames import Generate, Sampling

TOKENIZER = make_tokenizer()


def ask(number: int, prompt: str, count: int = 20, context: list[int] | None = None) -> Generate:
    return Generate(number, prompt, sampling=Sampling(temperature=0), num_predict=count, tokens=context or [])


def expected(prompt: str, count: int) -> list[int]:
    return alone(chaos, TOKENIZER.encode(prompt), count)


def test_the_last_known_state_is_found() -> None:
    checkpoints = Checkpoints(10, 3)
    assert checkpoints.longest([b"a", b"b"]) == (0, None)
    assert checkpoints.put(b"b") == 10
    assert checkpoints.put(b"d") == 11
    assert checkpoints.longest([b"a", b"b", b"c"]) == (2, 10)
    assert checkpoints.longest([b"a", b"b", b"c", b"d"]) == (4, 11)
    assert checkpoints.longest([b"c"]) == (0, None)


def test_the_least_recently_used_goes_first() -> None:
    checkpoints = Checkpoints(0, 2)
    first, second = checkpoints.put(b"a"), checkpoints.put(b"b")
    assert {first, second} == {0, 1}
    assert checkpoints.put(b"a") is None
    assert checkpoints.put(b"c") == second
    assert checkpoints.longest([b"b"]) == (0, None)
    checkpoints.longest([b"a"])
    assert checkpoints.put(b"d") == second


def test_a_state_can_take_the_place_of_another_one() -> None:
    checkpoints = Checkpoints(0, 2)
    place = checkpoints.put(b"a")
    assert checkpoints.put(b"b", instead_of=b"a") == place
    assert checkpoints.longest([b"a"]) == (0, None)
    assert checkpoints.put(b"c", instead_of=b"gone") != place


def test_a_text_is_what_it_is_without_states() -> None:
    runs = Runs(RecurrentExecutor())
    runs.run(ask(1, "x" * 200, 150))
    assert runs.ids(1) == expected("x" * 200, 150)


def test_the_same_prompt_goes_on_from_its_last_whole_block() -> None:
    runs, prompt = Runs(RecurrentExecutor()), "a" * 200
    for number in range(3):
        runs.run(ask(number, prompt, 5))
        assert runs.ids(number) == expected(prompt, 5)
    assert [runs.done(number).cached_tokens for number in range(3)] == [0, 192, 192]


def test_a_conversation_goes_on_from_the_last_block_that_was_written() -> None:
    runs = Runs(RecurrentExecutor())
    runs.run(ask(1, "a" * 100, 100))
    context = runs.done(1).context
    runs.run(ask(2, "b" * 10, 30, context))
    assert runs.done(2).cached_tokens == (len(context) - 1) // BLOCK_TOKENS * BLOCK_TOKENS == 192
    assert runs.ids(2) == alone(chaos, [*TOKENIZER.encode("a" * 100), *runs.ids(1), *TOKENIZER.encode("b" * 10)[1:]], 30)


def test_an_answer_that_is_left_out_later_does_not_cost_the_prompt() -> None:
    runs = Runs(RecurrentExecutor())
    runs.run(ask(1, "a" * 140, 150))
    runs.run(ask(2, "a" * 140 + "next", 10))
    assert runs.done(2).cached_tokens == 128
    assert runs.ids(2) == expected("a" * 140 + "next", 10)


def test_what_two_prompts_have_in_common_serves_the_third() -> None:
    runs, system = Runs(RecurrentExecutor()), "s" * 150
    for number in range(4):
        runs.run(ask(number, system + chr(ord("a") + number) * 100, 5))
        assert runs.ids(number) == expected(system + chr(ord("a") + number) * 100, 5)
    assert [runs.done(number).cached_tokens for number in range(4)] == [0, 0, 128, 128]


@pytest.mark.parametrize(("blocks", "checkpoints", "outputs"), [(14, 1, 4), (14, 3, 8), (200, 8, 16)])
def test_a_crowd(blocks: int, checkpoints: int, outputs: int) -> None:
    runs = Runs(RecurrentExecutor(n_blocks=blocks, checkpoints=checkpoints, max_rows=48, max_outputs=outputs), num_ctx=512)
    chance, asked = random.Random(5), {}
    for number in range(60):
        asked[number] = ask(number, f"{number % 5}" * chance.randint(1, 200), chance.randint(1, 90))
        runs.add(asked[number])
        runs.step(chance.randint(0, 15))
        if chance.random() < 0.1:
            runs.cancel(chance.randint(0, number))
    runs.run()
    for number, request in asked.items():
        ids = runs.ids(number)
        assert ids == expected(request.prompt, len(ids))
        assert runs.done(number).reason == "cancelled" or len(ids) == request.num_predict


def test_a_full_context_slides() -> None:
    runs = Runs(RecurrentExecutor(), num_ctx=128)
    runs.run(ask(1, "a" * 60, 200))
    assert runs.done(1).eval_tokens == 200
