from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ollama_compat import duration
from ollama_compat.errors import ApiError, InternalError, ServerBusy
from ollama_compat.failures import OutOfMemory
from ollama_compat.options import Options
from ollama_compat.residency import Residency
from ollama_compat.resident import Wanted, load_request
from ollama_compat.settings import Settings
from runtime.frames import GivenBack, Grown, Load, Loaded

TRAIN = 2048
SIZE = 10


class StubRunner:
    """Stands for a runner process; keeps a diary."""

    def __init__(self, diary: list[str], gate: asyncio.Event, failures: list[Exception], vram: int, gpu: int) -> None:
        self.dead = asyncio.Event()
        self.hangs = False
        self.fixed = False  # cannot grow
        self.most = TRAIN  # tokens that there is memory for
        self.bytes = 0  # in memory
        self.vram = vram  # bytes on the card
        self.gpu = gpu  # the card
        self.roomiest = 0  # that its driver tells of
        self._diary, self._gate, self._failures = diary, gate, failures
        self.request = Load("")

    async def load(self, request: Load, **_: Any) -> Loaded:
        self._diary.append(f"load {Path(request.path).name}")
        self.request = request
        await self._gate.wait()
        if self._failures:
            raise self._failures.pop(0)
        num_ctx = min(request.num_ctx or 512, TRAIN)
        return Loaded("stub", num_ctx, TRAIN, 1, "", "", False, [], SIZE, self.vram, "here", 1, gpu=self.gpu)

    async def give_back(self, nbytes: int, models: int, main_gpu: int | None) -> GivenBack:
        if self.gpu != (self.roomiest if main_gpu is None else main_gpu):
            return GivenBack(1, self.vram, shared=False)
        self._diary.append(f"{Path(self.request.path).name} gives back for {models} models")
        self.vram //= models
        return GivenBack(1, self.vram, shared=True)

    async def grow(self, num_ctx: int, memory: int) -> Grown | None:
        if self.fixed:
            return None
        self._diary.append(f"grow {Path(self.request.path).name} to {num_ctx}")
        return Grown(1, min(num_ctx, TRAIN, self.most), SIZE)

    def memory(self) -> int:
        return self.bytes

    async def alive(self) -> bool:
        return not self.dead.is_set() and not self.hangs

    def kill(self) -> None:
        self._diary.append("kill")

    async def close(self) -> None:
        self._diary.append(f"close {Path(self.request.path).name}")
        self.dead.set()


class World:
    """A residency over stubs, and what happened to them."""

    def __init__(self, root: Path, settings: Settings, memory: float) -> None:
        self.diary: list[str] = []
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.vram = 0  # bytes that a model takes of a card
        self.gpu = 0  # the card that it takes
        self.root = root
        self.residency = Residency(settings, self._spawn, lambda: memory)  # type: ignore[arg-type]

    async def _spawn(self) -> StubRunner:
        return StubRunner(self.diary, self.gate, self.failures, self.vram, self.gpu)

    def wanted(self, name: str, **options: Any) -> Wanted:
        path = self.root / name
        path.write_bytes(b"x" * 100)
        return Wanted(name, "digest", {}, str(path), Options(**options))

    async def touch(self, name: str, keep_alive: float | None = None, **options: Any) -> None:
        async with self.residency.use(self.wanted(name, **options), keep_alive):
            pass

    def names(self) -> list[str]:
        return [resident.wanted.name for resident in self.residency.list()]


Make = Callable[..., World]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    worlds: list[World] = []

    def build(memory: float = math.inf, **settings: Any) -> World:
        worlds.append(World(tmp_path, Settings(**settings), memory))
        return worlds[-1]

    yield build
    for world in worlds:
        await world.residency.close()


async def test_a_model_is_loaded_once_and_stays(make: Make) -> None:
    world = make()
    await world.touch("a")
    await world.touch("a")
    assert world.diary == ["load a"]
    assert world.names() == ["a"]


async def test_requests_that_come_during_a_load_share_it(make: Make) -> None:
    world = make()
    world.gate.clear()
    tasks = [asyncio.create_task(world.touch("a")) for _ in range(5)]
    await asyncio.sleep(0)
    world.gate.set()
    await asyncio.gather(*tasks)
    assert world.diary == ["load a"]


async def test_keep_alive_zero_unloads_after_the_last_request(make: Make) -> None:
    world = make()
    async with world.residency.use(world.wanted("a")):
        await world.touch("a", keep_alive=0)
        assert world.names() == ["a"]
    assert world.names() == []
    await world.residency.close()
    assert world.diary == ["load a", "close a"]


async def test_an_idle_model_expires(make: Make) -> None:
    world = make()
    await world.touch("a", keep_alive=0.01)
    assert world.names() == ["a"]
    await asyncio.sleep(0.05)
    assert world.names() == []


async def test_a_new_request_stops_the_clock(make: Make) -> None:
    world = make()
    await world.touch("a", keep_alive=0.01)
    async with world.residency.use(world.wanted("a")):
        await asyncio.sleep(0.05)
        assert world.names() == ["a"]


async def test_keep_alive_stays_until_a_request_names_another(make: Make) -> None:
    world = make(keep_alive=math.inf)
    await world.touch("a", keep_alive=600)
    await world.touch("a")
    (resident,) = world.residency.list()
    assert abs(resident.expires_ns - time.time_ns() - 600 * duration.SECOND) < 60 * duration.SECOND


async def test_for_ever_is_a_date_centuries_away(make: Make) -> None:
    world = make()
    await world.touch("a", keep_alive=math.inf)
    (resident,) = world.residency.list()
    assert duration.local(resident.expires_ns) > "2300"


async def test_unload_waits_for_running_requests(make: Make) -> None:
    world = make()
    wanted = world.wanted("a")
    async with world.residency.use(wanted):
        world.residency.unload(wanted.path)
        assert world.names() == ["a"]
    assert world.names() == []


@pytest.mark.parametrize("num_ctx", [64, 1024, 0])
async def test_a_smaller_context_does_not_reload(make: Make, num_ctx: int) -> None:
    world = make()
    await world.touch("a", num_ctx=1024)
    await world.touch("a", num_ctx=num_ctx)
    assert world.diary == ["load a"]
    assert world.residency.list()[0].context_length == (num_ctx or 1024)


async def test_a_larger_context_adds_blocks(make: Make) -> None:
    world = make()
    await world.touch("a", num_ctx=512)
    await world.touch("a", num_ctx=1024)
    assert world.diary == ["load a", "grow a to 1024"]
    assert world.residency.list()[0].context_length == 1024
    await world.touch("a", num_ctx=700)
    assert world.diary == ["load a", "grow a to 1024"]


async def test_a_larger_context_does_not_wait_for_running_requests(make: Make) -> None:
    world = make()
    async with world.residency.use(world.wanted("a", num_ctx=512)):
        async with asyncio.timeout(5):
            await world.touch("a", num_ctx=1024)
        assert world.diary == ["load a", "grow a to 1024"]


async def test_a_context_that_the_memory_does_not_hold_is_asked_for_once(make: Make) -> None:
    world = make()
    await world.touch("a", num_ctx=512)
    world.residency.list()[0].runner.most = 800  # type: ignore[attr-defined]
    for _ in range(2):
        await world.touch("a", num_ctx=1024)
    assert world.diary == ["load a", "grow a to 1024"]
    assert world.residency.list()[0].context_length == 800


async def test_a_runner_that_cannot_grow_is_loaded_again(make: Make) -> None:
    world = make()
    await world.touch("a", num_ctx=512)
    world.residency.list()[0].runner.fixed = True  # type: ignore[attr-defined]
    await world.touch("a", num_ctx=1024)
    assert world.diary == ["load a", "close a", "load a"]
    assert world.residency.list()[0].context_length == 1024


async def test_memory_that_loaded_models_are_yet_to_take_is_not_free(make: Make) -> None:
    world = make(memory=134)  # a file has 100 bytes and may take 80 % of what is free
    await world.touch("a")
    world.residency.list()[0].runner.bytes = SIZE  # type: ignore[attr-defined]
    await world.touch("b")
    assert world.names() == ["a", "b"]
    await world.touch("c")
    assert world.names() == ["c"]


@pytest.mark.parametrize(("embedding", "loads"), [(True, 2), (False, 1)])
async def test_an_embedding_model_is_not_left_with_a_batch_that_one_client_asked_for(
    make: Make, embedding: bool, loads: int
) -> None:
    world = make()
    for options in ({"num_batch": 2}, {}, {}):
        wanted = dataclasses.replace(world.wanted("a", **options), embedding=embedding)
        async with world.residency.use(wanted, None):
            pass
    assert sum(entry.startswith("load") for entry in world.diary) == loads


async def test_the_runner_is_told_how_much_memory_is_free(make: Make) -> None:
    world = make(memory=1000)
    await world.touch("a")
    await world.touch("b")
    requests = {name: world.residency.list()[at].runner.request for at, name in enumerate(world.names())}  # type: ignore[attr-defined]
    assert (requests["a"].memory, requests["b"].memory) == (1000, 1000 - SIZE)


async def test_a_context_beyond_the_training_does_not_reload_again(make: Make) -> None:
    world = make()
    await world.touch("a", num_ctx=1_000_000)
    await world.touch("a", num_ctx=3_000_000)
    assert world.diary == ["load a"]
    assert world.residency.list()[0].context_length == TRAIN


async def test_load_options_reload_only_when_named(make: Make) -> None:
    world = make()
    await world.touch("a", num_thread=2)
    await world.touch("a")
    assert world.diary == ["load a"]
    await world.touch("a", num_thread=1)
    assert world.diary == ["load a", "close a", "load a"]


async def test_a_reload_waits_for_running_requests_and_lets_no_new_ones_in(make: Make) -> None:
    world = make()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(world.residency.use(world.wanted("a", num_ctx=512)))
        bigger = asyncio.create_task(world.touch("a", num_thread=3))
        await asyncio.sleep(0)
        small = asyncio.create_task(world.touch("a"))
        await asyncio.sleep(0.01)
        assert world.diary == ["load a"]
        assert not small.done()
    await asyncio.gather(bigger, small)
    assert world.diary == ["load a", "close a", "load a"]


async def test_the_limit_evicts_the_idle_model_with_the_shortest_stay(make: Make) -> None:
    world = make(max_loaded_models=2)
    await world.touch("a", keep_alive=900)
    await world.touch("b", keep_alive=100)
    await world.touch("c", keep_alive=500)
    assert world.names() == ["a", "c"]
    assert world.diary == ["load a", "load b", "close b", "load c"]


async def test_a_busy_model_is_evicted_only_when_none_is_idle(make: Make) -> None:
    world = make(max_loaded_models=2)
    async with world.residency.use(world.wanted("a"), 1):
        await world.touch("b", keep_alive=900)
        await world.touch("c", keep_alive=900)
        assert world.names() == ["c", "a"]


async def test_models_go_when_memory_is_short(make: Make) -> None:
    world = make(memory=100)
    await world.touch("a")
    await world.touch("b")
    assert world.names() == ["b"]


async def test_out_of_memory_tries_again_with_the_memory_to_itself(make: Make) -> None:
    world = make()
    await world.touch("a")
    world.failures.append(OutOfMemory("no room"))
    await world.touch("b")
    assert world.names() == ["b"]
    assert world.diary == ["load a", "load b", "kill", "close a", "close b", "load b"] or world.diary == [
        "load a",
        "load b",
        "kill",
        "close b",
        "close a",
        "load b",
    ]


async def test_a_failed_load_is_an_error_and_leaves_nothing(make: Make) -> None:
    world = make()
    world.failures.append(InternalError("broken file"))
    with pytest.raises(InternalError, match="broken file"):
        await world.touch("a")
    assert world.names() == []
    await world.touch("a")
    assert world.names() == ["a"]


async def test_a_dead_runner_is_replaced_at_the_next_request(make: Make) -> None:
    world = make()
    await world.touch("a")
    world.residency.list()[0].runner.dead.set()
    assert world.names() == []
    await world.touch("a")
    assert world.diary == ["load a", "close a", "load a"]


async def test_a_runner_that_does_not_answer_is_replaced(make: Make) -> None:
    world = make()
    await world.touch("a")
    world.residency.list()[0].runner.hangs = True  # type: ignore[attr-defined]
    await world.touch("a")
    assert world.diary == ["load a", "close a", "load a"]


async def test_beyond_the_queue_requests_are_refused_at_once(make: Make) -> None:
    world = make(max_queue=2)
    world.gate.clear()
    tasks = [asyncio.create_task(world.touch(name)) for name in "abcde"]
    await asyncio.sleep(0)
    world.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 3 + [ServerBusy] * 2
    assert str(results[-1]) == "server busy, please try again.  maximum pending requests exceeded"


async def test_a_client_that_leaves_during_the_load_ends_it(make: Make) -> None:
    world = make()
    world.gate.clear()
    task = asyncio.create_task(world.touch("a"))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.names() == []
    assert "kill" in world.diary
    world.gate.set()
    await world.touch("a")
    assert world.names() == ["a"]


async def test_a_client_that_leaves_does_not_end_the_load_of_others(make: Make) -> None:
    world = make()
    world.gate.clear()
    first, second = (asyncio.create_task(world.touch("a")) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    world.gate.set()
    await second
    assert world.diary == ["load a"]


async def test_the_last_client_that_leaves_ends_the_load(make: Make) -> None:
    world = make()
    world.gate.clear()
    tasks = [asyncio.create_task(world.touch("a")) for _ in range(3)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert world.diary[:2] == ["load a", "kill"]
    assert "load a" not in world.diary[2:]
    assert world.residency.queued == 0


async def test_a_failed_load_fails_all_who_waited_for_it(make: Make) -> None:
    world = make()
    world.gate.clear()
    world.failures.append(InternalError("broken file"))
    tasks = [asyncio.create_task(world.touch("a")) for _ in range(3)]
    await asyncio.sleep(0.01)
    world.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(result) for result in results] == ["broken file"] * 3
    assert world.diary[:2] == ["load a", "kill"]
    assert "load a" not in world.diary[2:]


async def test_models_that_push_each_other_out_are_all_served(make: Make) -> None:
    world = make(max_loaded_models=1)
    async with asyncio.timeout(5):
        await asyncio.gather(*(world.touch(name) for name in "abcabcabc"))
    assert len(world.names()) == 1
    assert world.diary.count("load a") == 1


async def test_any_order_of_requests_and_departures_leaves_nothing_behind(make: Make) -> None:
    chance = random.Random(7)
    world = make(max_loaded_models=2, keep_alive=math.inf)

    async def visit() -> None:
        wanted = world.wanted(chance.choice("abc"), num_ctx=chance.choice((0, 100, 900)), num_thread=chance.choice((0, 0, 2)))
        async with world.residency.use(wanted, chance.choice((None, 0, 0.01))):
            await asyncio.sleep(chance.random() / 100)

    async def impatient() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.random() / 50):
                await visit()

    async with asyncio.timeout(20):
        for _ in range(6):
            await asyncio.gather(*((visit if chance.random() < 0.5 else impatient)() for _ in range(25)))
    assert world.residency.queued == 0
    assert all(resident.users == 0 and not resident.leaving for resident in world.residency.list())
    await world.residency.close()
    assert sum(line.startswith("load") for line in world.diary) == sum(line.startswith("close") for line in world.diary)


async def test_a_file_that_vanished_is_a_model_not_found(make: Make) -> None:
    world = make()
    wanted = world.wanted("a")
    (world.root / "a").unlink()
    with pytest.raises(ApiError, match='model "a" not found, try pulling it first') as caught:
        async with world.residency.use(wanted):
            pass
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("options", "settings", "field", "value"),
    [
        ({}, {}, "num_ctx", 0),
        ({}, {"context_length": 9000}, "num_ctx", 9216),
        ({"num_ctx": 256}, {"context_length": 9000}, "num_ctx", 256),
        ({"num_ctx": 257}, {}, "num_ctx", 512),
        ({"num_ctx": -5}, {}, "num_ctx", 256),
        ({"num_ctx": 1 << 62}, {}, "num_ctx", 1 << 24),
        ({"num_ctx": 40000}, {}, "num_batch", 0),
        ({"num_batch": -1}, {}, "num_batch", 1),
        ({"num_thread": 1 << 40}, {}, "num_thread", 1024),
        ({}, {}, "num_parallel", 0),
        ({}, {"num_parallel": 2}, "num_parallel", 2),
        ({}, {"kv_cache_type": "q8_0"}, "kv_cache_type", "q8_0"),
    ],
)
def test_load_request_bounds_every_number(options: dict[str, Any], settings: dict[str, Any], field: str, value: Any) -> None:
    request = load_request(Wanted("a", "", {}, "/a", Options(**options)), Settings(**settings))
    assert getattr(request, field) == value


async def test_a_model_on_a_card_leaves_room_for_the_next(make: Make) -> None:
    world = make()
    world.vram = 8
    await world.touch("a")
    await world.touch("b")
    await world.touch("c", num_gpu=0)
    assert world.diary == ["load a", "a gives back for 2 models", "load b", "load c"]
    assert {resident.wanted.name: resident.loaded.size_vram for resident in world.residency.list()} == {"a": 4, "b": 8, "c": 8}
    shared = {resident.wanted.name: resident.runner.request.shared for resident in world.residency.list()}  # type: ignore[attr-defined]
    assert shared == {"a": False, "b": True, "c": False}


async def test_a_model_keeps_its_card_where_the_next_comes_to_another(make: Make) -> None:
    world = make(max_loaded_models=5)
    world.vram = 8
    await world.touch("a", main_gpu=0)
    world.gpu = 1
    await world.touch("b", main_gpu=1)
    for resident in world.residency.list():
        resident.runner.roomiest = 1  # type: ignore[attr-defined]
    await world.touch("c")
    assert world.diary == ["load a", "load b", "b gives back for 2 models", "load c"]
    shared = {resident.wanted.name: resident.runner.request.shared for resident in world.residency.list()}  # type: ignore[attr-defined]
    assert shared == {"a": False, "b": False, "c": True}
    world.gpu = 0
    await world.touch("d", main_gpu=0)
    assert world.diary[-2:] == ["a gives back for 2 models", "load d"]


async def test_models_leave_a_full_card_and_then_the_memory(make: Make) -> None:
    world = make(max_loaded_models=5)
    world.vram = 8
    await world.touch("a", main_gpu=0)
    world.gpu = 1
    await world.touch("b", main_gpu=1)
    world.failures = [OutOfMemory("the card is held by other models")]
    await world.touch("c", main_gpu=1)
    assert sorted(world.names()) == ["a", "c"]
    world.failures = [OutOfMemory("the card is held by other models"), OutOfMemory("and the memory")]
    await world.touch("d", main_gpu=1)
    assert world.names() == ["d"]


async def test_a_model_that_runs_on_the_cpu_asks_for_no_room_on_a_card(make: Make) -> None:
    world = make(max_loaded_models=5)
    world.vram = 8
    await world.touch("a")
    for name, other in (("b", {"embedding": True}), ("c", {"adapters": ("lora",)})):
        async with world.residency.use(dataclasses.replace(world.wanted(name), **other)):
            pass
    assert world.diary == ["load a", "load b", "load c"]


async def test_models_leave_a_card_that_has_no_room_for_the_next(make: Make) -> None:
    world = make()
    world.vram = 8
    await world.touch("a")
    world.failures = [OutOfMemory("the card is held by other models: only 2 of 28 layers fit beside other models")]
    await world.touch("b")
    assert world.names() == ["b"]
    assert [line for line in world.diary if line.startswith(("load", "close a"))] == ["load a", "load b", "close a", "load b"]
    assert world.residency.list()[0].runner.request.shared is False  # type: ignore[attr-defined]


async def test_memory_on_a_card_needs_no_runner_that_died(make: Make) -> None:
    world = make()
    world.vram = 8
    await world.touch("a")
    world.residency.list()[0].runner.dead.set()
    await world.touch("b")
    assert "a gives back for 2 models" not in world.diary
