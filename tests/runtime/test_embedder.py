"""The engine of embedding models: whose text comes when, how long a text may be, and what becomes of the vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from runtime.core import Encoder
from runtime.embedder import EMPTY, NOT_FINITE, Embedder, EmbedJob, decimals, unit
from runtime.frames import Embed, Embeddings, Failed, Generate, Grow
from runtime.room import NO_ROOM, TOO_LONG
from runtime.tokenizer import Tokenizer

BOS, EOS = 1, 2


@dataclasses.dataclass
class Words:
    """A tokenizer whose tokens are the lengths of words, beginning with 10; an `e` puts BOS or EOS itself."""

    frames: bool = True
    bos_id: int | None = BOS
    eos_id: int | None = EOS

    def encode(self, text: str, parse_special: bool = True, add_special: bool = True) -> list[int]:
        assert not add_special
        return [{"<s>": BOS, "</s>": EOS}.get(word, 10 + len(word)) for word in text.split()]

    def framed(self, ids: list[int]) -> list[int]:
        return [BOS, *ids, EOS] if self.frames else ids


@dataclasses.dataclass
class Sums:
    """An encoder whose vectors are (tokens, first, last, 1); it remembers what it got."""

    max_rows: int = 16
    longest: int = 16
    n_ctx_train: int = 64
    size: int = 5
    size_vram: int = 0
    ranks: bool = False
    steps: list[list[list[int]]] = dataclasses.field(default_factory=list)
    broken: float = 0.0  # what stands in the vectors of texts with a token 13

    def encode(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        self.steps.append([list(text) for text in texts])
        assert sum(map(len, texts)) <= self.max_rows
        rows = [[len(t), t[0], t[-1], self.broken if 13 in t and self.broken else 1] for t in texts]
        return np.array(rows, np.float32)


class Desk:
    """An embedder with what it stands on."""

    def __init__(self, num_ctx: int = 64, *, frames: bool = True, **sizes: Any) -> None:
        self.sums = Sums(**sizes)
        self.embedder = Embedder(cast(Encoder, self.sums), cast(Tokenizer, Words(frames)), num_ctx)

    def submit(self, number: int, *texts: str, **fields: Any) -> None:
        job = self.embedder.prepare(Embed(number, list(texts), normalize=False, **fields))
        assert isinstance(job, EmbedJob), job
        assert self.embedder.submit(job) == []

    def refused(self, text: str, **fields: Any) -> Failed:
        failed = self.embedder.prepare(Embed(7, [text], **fields))
        assert isinstance(failed, Failed)
        return failed

    def run(self) -> list[Any]:
        """Steps until there is nothing to do; all replies."""
        replies = []
        while self.embedder.busy:
            replies += self.embedder.step()
        return replies


def text(words: int) -> str:
    return " ".join(["ab"] * words)


# ---------------------------------------------------------------- whose turn it is


def test_many_texts_go_as_one_batch() -> None:
    desk = Desk(max_rows=100)
    desk.submit(1, *[text(n) for n in (3, 1, 5, 2)])
    (reply,) = desk.run()
    assert len(desk.sums.steps) == 1
    assert [len(tokens) for tokens in desk.sums.steps[0]] == [5, 3, 7, 4]
    assert [vector[0] for vector in reply.embeddings] == [5, 3, 7, 4]
    assert reply.prompt_tokens == 19


def test_requests_share_a_step() -> None:
    desk = Desk(max_rows=100)
    desk.submit(1, text(3))
    desk.submit(2, text(4), text(5))
    replies = desk.embedder.step()
    assert [(reply.id, len(reply.embeddings)) for reply in replies] == [(1, 1), (2, 2)]
    assert not desk.embedder.busy


def test_a_question_does_not_wait_for_a_library() -> None:
    desk = Desk(max_rows=16)
    desk.submit(1, *[text(4)] * 100)  # two texts fill a step
    assert desk.embedder.step() == []
    desk.submit(2, text(3))
    assert [reply.id for reply in desk.embedder.step()] == [2]
    assert [reply.id for reply in desk.run()] == [1]


def test_libraries_advance_side_by_side() -> None:
    desk = Desk(max_rows=12)
    for number in (1, 2, 3):
        desk.submit(number, *[text(4)] * 6)
    ended = [reply.id for reply in desk.run()]
    assert sorted(ended) == [1, 2, 3]
    assert len(desk.sums.steps) == 9  # two texts each: nobody runs ahead by more than a text
    served = [len(step) for step in desk.sums.steps]
    assert served == [2] * 9


def test_the_order_of_vectors_is_that_of_the_texts() -> None:
    desk = Desk(max_rows=10)
    sizes = [1, 8, 2, 3, 8, 1, 1, 5]
    desk.submit(1, *map(text, sizes))
    (reply,) = desk.run()
    assert [vector[0] - 2 for vector in reply.embeddings] == sizes


def test_a_request_without_texts_ends_at_once() -> None:
    embedder = Desk().embedder
    job = embedder.prepare(Embed(1, []))
    assert isinstance(job, EmbedJob)
    assert embedder.submit(job) == [Embeddings(1, [], 0)]
    assert not embedder.busy
    assert embedder.step() == []


def test_the_same_number_twice() -> None:
    desk = Desk()
    desk.submit(1, "ab")
    job = desk.embedder.prepare(Embed(1, ["cd"]))
    assert isinstance(job, EmbedJob)
    assert desk.embedder.submit(job) == [Failed(1, "bad_request", "request 1 is there already")]
    assert [reply.id for reply in desk.run()] == [1]


def test_a_cancelled_request_is_forgotten() -> None:
    desk = Desk(max_rows=16)
    desk.submit(1, *[text(4)] * 10)
    desk.submit(2, text(1))
    desk.embedder.step()
    assert desk.embedder.cancel(1) == []
    assert desk.embedder.cancel(1) == []
    assert desk.embedder.cancel(99) == []
    assert not desk.embedder.busy
    assert desk.run() == []


def test_a_failure_ends_all() -> None:
    desk = Desk()
    desk.submit(1, "ab")
    desk.submit(2, "ab")
    assert desk.embedder.fail("internal", "gone") == [Failed(1, "internal", "gone"), Failed(2, "internal", "gone")]
    assert not desk.embedder.busy


def test_counters() -> None:
    desk = Desk()
    desk.submit(1, "ab")
    stats = desk.embedder.stats(9)
    assert (stats.id, stats.running, stats.blocks_total, stats.steps, stats.size) == (9, 1, 0, 0, 5)
    desk.run()
    assert (desk.embedder.stats(9).running, desk.embedder.stats(9).steps) == (0, 1)


def test_other_work_is_refused() -> None:
    embedder = Desk().embedder
    assert embedder.prepare(Generate(3, "x")) == Failed(3, "unsupported", "this model makes vectors, not text")
    grown = embedder.grow(Grow(4, 100))
    assert (grown.id, grown.kind) == (4, "unsupported")


# ---------------------------------------------------------------- how long a text may be


def lengths(desk: Desk, **fields: Any) -> list[int]:
    """Tokens of a text of 100 words that reach the model."""
    desk.submit(1, text(100), **fields)
    desk.run()
    return [len(tokens) for tokens in desk.sums.steps[-1]]


@pytest.mark.parametrize(
    ("num_ctx", "longest", "asked", "expected"),
    [
        (64, 1000, 0, 64),  # the context of the runner, BOS and EOS among it
        (20, 1000, 0, 20),
        (1000, 1000, 0, 64),  # the model's own
        (64, 1000, 10, 10),  # what the request says
        (64, 1000, 1000, 64),
        (64, 30, 0, 30),  # what one pass of the model can take
    ],
)
def test_a_long_text_is_cut(num_ctx: int, longest: int, asked: int, expected: int) -> None:
    assert lengths(Desk(num_ctx, longest=longest, max_rows=1000), num_ctx=asked) == [expected]


def test_room_for_bos_and_eos_is_left_although_nobody_puts_them() -> None:
    assert lengths(Desk(20, frames=False, longest=1000, max_rows=1000)) == [18]


def test_a_text_that_brings_bos_and_eos_has_all_the_room() -> None:
    desk = Desk(8, frames=False, max_rows=100)
    desk.submit(1, f"<s> {text(6)} </s>", truncate=False)
    desk.run()
    assert len(desk.sums.steps[0][0]) == 8


@pytest.mark.parametrize(("words", "fits"), [(6, True), (7, False)])
def test_without_truncation_a_long_text_is_an_error(words: int, fits: bool) -> None:
    desk = Desk(8)
    if fits:
        desk.submit(1, text(words), truncate=False)
    else:
        assert desk.refused(text(words), truncate=False) == Failed(7, "context_length", TOO_LONG)


def test_the_pass_limits_without_truncation_too() -> None:
    desk = Desk(64, longest=8)
    assert desk.refused(text(7), truncate=False) == Failed(7, "context_length", TOO_LONG)
    desk.submit(1, text(6), truncate=False)


@pytest.mark.parametrize("truncate", [True, False])
def test_a_long_text_that_brings_its_own_bos_cannot_be_cut_to_fit(truncate: bool) -> None:
    """It gets another one, and would wait for ever for a pass that takes it."""
    desk = Desk(8, longest=8)
    assert desk.refused(f"<s> {text(20)}", truncate=truncate) == Failed(7, "context_length", TOO_LONG)
    desk.submit(1, f"<s> {text(5)}", truncate=truncate)


@pytest.mark.parametrize("truncate", [True, False])
def test_a_context_without_room(truncate: bool) -> None:
    assert Desk().refused("ab", truncate=truncate, num_ctx=2) == Failed(7, "context_length", NO_ROOM)
    assert Desk(longest=2).refused("ab") == Failed(7, "context_length", NO_ROOM)


def test_no_text_at_all() -> None:
    assert Desk(frames=False).refused("") == Failed(7, "bad_request", EMPTY)
    desk = Desk()
    desk.submit(1, "")
    (reply,) = desk.run()
    assert desk.sums.steps == [[[BOS, EOS]]]
    assert reply.prompt_tokens == 2


def test_one_bad_text_refuses_the_request() -> None:
    failed = Desk(8).embedder.prepare(Embed(7, ["ab", text(50)], truncate=False))
    assert failed == Failed(7, "context_length", TOO_LONG)


# ---------------------------------------------------------------- the vectors


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none(number: float) -> None:
    desk = Desk(max_rows=16, broken=number)
    desk.submit(1, "ab", "abc", "ab", "ab", "ab", "ab", "ab")  # 13 stands for `abc`
    desk.submit(2, "ab")
    replies = {reply.id: reply for reply in desk.run()}
    assert replies[1] == Failed(1, "bad_request", NOT_FINITE)
    assert isinstance(replies[2], Embeddings)


def shaped(**fields: Any) -> list[float]:
    embedder = Desk().embedder
    job = embedder.prepare(Embed(1, ["ab ab"], **fields))
    assert isinstance(job, EmbedJob)
    embedder.submit(job)
    (reply,) = embedder.step()
    assert isinstance(reply, Embeddings)
    return reply.embeddings[0]


RAW = np.array([4, 1, 2, 1], np.float32)


def test_vectors_have_length_one_unless_raw_ones_are_asked_for() -> None:
    assert shaped(normalize=False) == [4, 1, 2, 1]
    np.testing.assert_allclose(shaped(), RAW / np.sqrt(22), rtol=1e-6)


@pytest.mark.parametrize(("dimensions", "count"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (0, 4), (-1, 4)])
def test_dimensions(dimensions: int, count: int) -> None:
    vector = np.array(shaped(dimensions=dimensions))
    np.testing.assert_allclose(vector, RAW[:count] / np.linalg.norm(RAW[:count]), rtol=1e-6)


def test_zeros_stay_zeros() -> None:
    assert unit(np.zeros(3, np.float32)).tolist() == [0, 0, 0]


def test_numbers_are_the_shortest_that_mean_the_same() -> None:
    values = np.array([0.1, 1 / 3, 1e-7, 123456.78, -0.0], np.float32)
    numbers = decimals(values)
    assert numbers[:4] == [0.1, 0.33333334, 1e-7, 123456.78]
    assert np.array_equal(np.array(numbers, np.float32), values)
