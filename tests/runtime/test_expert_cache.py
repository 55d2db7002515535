"""Experts that move to the card and away, with a stand-in for its copies."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_gguf

torch = pytest.importorskip("torch", reason="needs the extra cuda")

from runtime import models  # noqa: E402
from runtime.execute.cuda_experts import layer_of  # noqa: E402
from runtime.execute.cuda_values import memory  # noqa: E402
from runtime.execute.expert_cache import STEPS, ExpertCache  # noqa: E402
from runtime.execute.experts import LOOKED_UP, STREAMED, Residence  # noqa: E402
from runtime.execute.needs import mixtures  # noqa: E402
from runtime.weights import open_weights  # noqa: E402

SLOTS = 2


class LateCopies:
    """Copies that arrive when told to."""

    def __init__(self) -> None:
        self.copies: list[tuple[int, int, int]] = []

    @contextlib.contextmanager
    def after_current(self) -> Iterator[None]:
        yield

    def copy(self, target: int, source: int, nbytes: int) -> None:
        self.copies.append((target, source, nbytes))

    def arrived(self) -> bool:
        return not self.copies

    def wait(self) -> None:
        for target, source, nbytes in self.copies:
            ctypes.memmove(target, source, nbytes)
        self.copies = []


@pytest.fixture
def side() -> LateCopies:
    return LateCopies()


@pytest.fixture
def cache(tmp_path: Path, side: LateCopies) -> Iterator[ExpertCache]:
    """Of a model with the first SLOTS experts of each layer on the "card", which here is the host's memory."""
    weights = open_weights(tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("qwen3moe", "F32")), lambda *_: None)
    layers = [layer_of(m.experts) for m in mixtures(models.build(weights))]
    made = ExpertCache(layers, torch.device("cpu"), side)
    for residence in made.residences:
        sizes = zip(residence.layer.tensors, residence.layer.sizes, strict=True)
        residence.keep([memory(tensor.address, size * SLOTS).clone() for tensor, size in sizes])
    made.open(moving=True)
    yield made
    weights.close()


def steps(cache: ExpertCache, expert: int, line: int = LOOKED_UP) -> None:
    """As the card does: STEPS rows that choose one expert on all layers."""
    for _ in range(STEPS):
        cache.begin(1)
        for residence in cache.residences:
            assert residence.uses is not None
            residence.uses[line, expert] += 1
        cache.report()
        cache.move()


def intact(residence: Residence) -> bool:
    """Whether the card's table leads to the matrices of just those experts that it names."""
    table, layer = residence.addresses.numpy(), residence.layer
    present = [expert for expert in range(layer.experts) if table[0, expert]]
    return all(
        ctypes.string_at(int(table[kind, expert]), size) == ctypes.string_at(tensor.address + expert * size, size)
        for kind, (tensor, size) in enumerate(zip(layer.tensors, layer.sizes, strict=True))
        for expert in present
    ) and [expert for first, last in residence.missing for expert in range(first, last)] == [
        expert for expert in range(layer.experts) if expert not in present
    ]


def test_hot_experts_move_in_and_nobody_waits(cache: ExpertCache, side: LateCopies) -> None:
    while not side.copies:
        steps(cache, 3)
        assert all(map(intact, cache.residences))
    moved = [residence for residence in cache.residences if int((residence.addresses[0] != 0).sum()) < SLOTS]
    assert moved  # the victims' slots are closed before anything is written there
    assert all(not residence.addresses[0, 3] for residence in cache.residences)
    steps(cache, 3)
    assert cache.moves == 0
    side.wait()
    while cache.moves < len(cache.residences):
        steps(cache, 3)
        side.wait()
    assert all(residence.addresses[0, 3] for residence in cache.residences)
    assert all(map(intact, cache.residences))


def test_hits_are_counted(cache: ExpertCache) -> None:
    steps(cache, 0)
    steps(cache, 0)
    steps(cache, 2)
    layers = len(cache.residences)
    assert (cache.hits, cache.lookups) == (2 * STEPS * layers, 3 * STEPS * layers)


def test_streamed_prompts_heat_but_are_no_lookups(cache: ExpertCache, side: LateCopies) -> None:
    steps(cache, 2, STREAMED)
    steps(cache, 3)
    steps(cache, 3)
    assert cache.lookups == 2 * STEPS * len(cache.residences)
    assert side.copies


def test_settle_finishes_what_is_under_way(cache: ExpertCache, side: LateCopies) -> None:
    while not side.copies:
        steps(cache, 3)
    copied = sum(nbytes for _, _, nbytes in side.copies)
    cache.settle()
    assert cache.moves > 0
    assert cache.moved_bytes == copied
    assert all(map(intact, cache.residences))
    assert all(int((residence.addresses[0] != 0).sum()) == SLOTS for residence in cache.residences)


def test_a_cache_that_may_not_move_stays(cache: ExpertCache, side: LateCopies) -> None:
    cache.open(moving=False)
    for _ in range(20):
        steps(cache, 3)
    assert not side.copies


@pytest.mark.parametrize("share", [0.6, 0.0])
def test_a_cache_that_shrinks_keeps_who_is_in_its_first_slots(share: float, cache: ExpertCache, side: LateCopies) -> None:
    while not side.copies:
        steps(cache, 3)  # so that something is under way
    held = cache.partial_bytes
    assert cache.shrink(share) == held // 2
    assert cache.partial_bytes == held // 2
    assert [residence.slots for residence in cache.residences] == [1] * len(cache.residences)
    assert all(map(intact, cache.residences))
    assert all(int((residence.addresses[0] != 0).sum()) == 1 for residence in cache.residences)
    for _ in range(16):
        steps(cache, 5)
        side.wait()
    assert all(map(intact, cache.residences))
    assert all(residence.addresses[0, 5] for residence in cache.residences)
