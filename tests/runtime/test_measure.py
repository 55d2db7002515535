"""Measurements: their arithmetic, and that every rate of this machine is a sane number."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.core import Batch, ModelError
from runtime.execute.recorder import Recorder
from runtime.kernels import cores
from runtime.kernels.cache import KernelCache
from runtime.kernels.driver import Driver
from runtime.kernels.kept import KINDS, VALUE
from runtime.kernels.leaves import Leaves
from runtime.measure import disk, memory
from runtime.measure.batches import Texts
from runtime.measure.bench import Case, _writing, bench, plan
from runtime.measure.looks import FEW_HEADS, HEADS, ORDINARY, Looks, apart, shared
from runtime.measure.machine import MOST_ROUNDS, Round, _rounds, calm, kernels
from runtime.measure.others import Others
from runtime.measure.parts import part_of, shares
from runtime.measure.products import TypeRate, activations
from runtime.measure.rates import Rates, middle, products_alone, rates
from runtime.measure.stage import Stage
from runtime.measure.vectors import MANY, VectorRate, _rate

MIB = 1 << 20


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    running = Stage(Leaves(), 2)
    yield running
    running.close()


def test_the_plan_has_every_prompt_and_every_answer_at_every_depth_and_width() -> None:
    assert plan([512, 0], [0], [0], [1]) == [Case(512, 0, 0, 1)]
    assert plan([], [16], [0, 100], [1, 4]) == [Case(0, 16, 0, 1), Case(0, 16, 0, 4), Case(0, 16, 100, 1), Case(0, 16, 100, 4)]


@pytest.mark.parametrize(
    ("label", "part"),
    [
        ("blk.3.attn_q.weight", "attention"),
        ("attention.attend", "attention"),
        ("blk.0.attn_output.weight", "attention"),
        ("blk.11.ffn_gate_inp.weight", "router"),
        ("router.combine", "router"),
        ("blk.0.ffn_gate_exps.weight", "CPU experts"),
        ("blk.0.ffn_down.weight", "feed-forward"),
        ("output.weight", "output"),
        ("token_embd.weight", "output"),
        ("rows.rms_norm", "norms and other"),
    ],
)
def test_parts_by_the_names_of_tensors_and_kernels(label: str, part: str) -> None:
    assert part_of(label) == part


def test_shares_are_summed() -> None:
    rows = [("blk.0.attn_q.weight", 0.25), ("attention.attend", 0.25), ("rows.add", 0.5)]
    assert shares(rows) == {"attention": 0.5, "norms and other": 0.5}


def test_memory_and_clock(stage: Stage) -> None:
    assert memory.read_speed(stage, memory.filled(8 * MIB), 0.01) > 1e8
    assert 2e8 < memory.clock(stage) < 2e10


def test_a_buffer_beyond_the_caches_leaves_memory_free() -> None:
    assert memory.size_beyond(32 * MIB, 1 << 40) == 256 * MIB
    assert memory.size_beyond(512 * MIB, 1 << 40) == 1536 * MIB
    assert memory.size_beyond(32 * MIB, 400 * MIB) == 100 * MIB


def test_a_buffer_where_nobody_knows_the_memory_or_there_is_none() -> None:
    """Less than the rows that kernels are timed by would be read and written beyond its end."""
    assert memory.size_beyond(0, 0) == 256 * MIB
    assert memory.size_beyond(32 * MIB, 100) == memory.SMALLEST


def test_rates(stage: Stage) -> None:
    found = rates(stage, memory.filled(16 * MIB), ["Q4_K", "F32"], 4 * MIB, 0.001, states=True)
    assert set(found.types) == {"Q4_K", "F32"}
    assert all(value > 0 for rate in found.types.values() for value in dataclasses.astuple(rate))
    assert min(found.step, found.row, found.row_shared, found.state, found.state_prompt) > 0
    assert found.looks is not None
    told = [*dataclasses.astuple(found.looks), *(value for rate in found.vectors.values() for value in dataclasses.astuple(rate))]
    told += [found.output_prompt, found.output_least]
    assert all(math.isfinite(value) and value >= 0 for value in told)  # a busy machine can hide a difference


class Clocked:
    """A pool whose runs take what they are told, by a clock of its own; the last one again and again."""

    def __init__(self, stage: Stage, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
        self._seconds, self._now = [*seconds], 0.0
        monkeypatch.setattr(stage, "_pool", self)
        if stage._now is time.perf_counter:
            monkeypatch.setattr(stage, "_now", lambda: self._now)

    def run(self, *_: object) -> None:
        self._now += self._seconds.pop(0) if len(self._seconds) > 1 else self._seconds[0]


@pytest.mark.parametrize(
    ("first", "usual"),
    [(1.0, 0.02), (0.001, 0.02), (0.03, 0.025)],  # compiled; too short to say anything; long, and the median of it and others
)
def test_a_first_run_counts_where_it_is_long_and_nothing_was_compiled(
    first: float, usual: float, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clocked(stage, monkeypatch, first, 0.02)
    assert stage._time(np.empty((0, 8), np.int64), 0.02 if first != 0.03 else 0.0125).usual == pytest.approx(usual)


@pytest.mark.parametrize(("granted", "threads", "told"), [(0.5, 1, 0.004), (1.5, 2, 0.002), (2.0, 2, 0.02)])
def test_where_a_quota_stops_threads_the_time_counts_for_which_they_ran(
    granted: float, threads: int, told: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth of the time, all threads together."""
    monkeypatch.setattr(cores, "granted", lambda: granted)
    limited = Stage(Leaves(), threads)
    limited.close()
    clock = Clocked(limited, monkeypatch, 0.02)
    monkeypatch.setattr("runtime.measure.stage.time.process_time", lambda: clock._now / 5)
    assert limited._time(np.empty((0, 8), np.int64), 0.1).usual == pytest.approx(told)


def one_round(others: float | None, read: float = 1.0) -> Round:
    alone: Any = None
    return Round((read, read), alone, alone, others)


@pytest.mark.parametrize(
    ("others", "kept"),
    [([1.0, 0.0, 0.05, 0.9], [1, 2]), ([1.0, 0.98], [0, 1]), ([None, None], [0, 1]), ([0.3], [0])],
)
def test_rounds_in_which_others_worked_do_not_count_beside_calm_ones(others: list[float | None], kept: list[int]) -> None:
    rounds = [one_round(each, number) for number, each in enumerate(others)]
    assert [found.reads[0] for found in calm(rounds)] == kept


def test_there_is_one_round_and_more_where_they_end_in_time() -> None:
    now = time.perf_counter()
    assert len(_rounds(lambda: one_round(0.0), now - 10)) == 1
    assert len(_rounds(lambda: one_round(0.0), now + 10)) == MOST_ROUNDS


@pytest.mark.parametrize(
    ("types", "steps", "states"),
    [(["Q4_K", "IQ3_S"], True, True), (["MXFP4", "F32"], True, False), (["Q4_K", "IQ2_XXS", "F32"], False, False)],
)
def test_what_is_timed_is_compiled_ahead_and_no_more(
    types: list[str], steps: bool, states: bool, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = {"pool"}
    leaf, driver = Leaves.compile, Driver.address

    def compiled(leaves: Leaves, name: str) -> int:
        used.add(name)
        return leaf(leaves, name)

    def address(kernel: Driver, cache: KernelCache) -> int:
        used.add(kernel.name)
        return driver(kernel, cache)

    monkeypatch.setattr(Leaves, "compile", compiled)
    monkeypatch.setattr(Driver, "address", address)
    one = Stage(stage.leaves, 1)
    for each in (one, stage):
        if steps:
            rates(each, memory.filled(16 * MIB), types, 4 * MIB, 0.001, states=states)
        else:
            products_alone(each, memory.filled(16 * MIB), types, 4 * MIB, 0.001)
    one.close()
    memory.clock(stage)
    memory.read_speed(stage, memory.filled(MIB), 0.001)
    assert set(kernels(stage.leaves, types, KINDS["f16"], steps=steps, states=states)) - {"quantize.f32"} == used


def test_how_much_others_work_is_told_by_the_system(tmp_path: Path) -> None:
    """What all CPUs did, less what this process did; of a system that tells nothing, nothing."""
    (tmp_path / "proc").mkdir()
    stat = tmp_path / "proc/stat"
    ours = sorted(os.sched_getaffinity(0))

    def told(busy: int) -> None:  # ticks of each CPU, of which many more are idle
        lines = [f"cpu{cpu} {busy} 0 0 5000 700 0 0 0 0 0" for cpu in (*ours, 9999)]
        stat.write_text("\n".join([f"cpu  {busy} 0 0 0 0 0 0 0 0 0", *lines, "intr 1 2"]))

    told(100)
    others = Others(tmp_path)
    assert others.cores() == 0.0
    told(100_000_000)
    found = others.cores()
    assert found is not None
    assert found > 1000 * len(ours)
    stat.unlink()
    assert others.cores() is None
    assert Others(tmp_path).cores() is None


def test_of_what_was_measured_several_times_the_middle_counts() -> None:
    """Field by field, in what lies within it too."""
    columns = [field.name for field in dataclasses.fields(TypeRate)]
    several = [
        Rates(
            threads=2,
            types={"F32": TypeRate(*(x + i for i, _ in enumerate(columns)))},
            row=10 * x,
            vectors={"add": VectorRate(x, 2 * x, 1.0)},
            looks=Looks(*[x] * len(dataclasses.fields(Looks))),
        )
        for x in (1.0, 9.0, 2.0)
    ]
    found = middle(several)
    assert found.threads == 2
    assert dataclasses.astuple(found.types["F32"]) == tuple(2.0 + i for i, _ in enumerate(columns))
    assert (found.row, found.vectors["add"]) == (20.0, VectorRate(2.0, 4.0, 1.0))
    assert set(dataclasses.astuple(found.looks)) == {2.0}
    assert middle(several[:2]).row == 50.0


@pytest.mark.parametrize(
    ("few", "long", "many", "rate"),
    [
        (3e-6, 1.208e-6, 5.048e-6, VectorRate(9.52e-7, 1e-9, 2e-9)),
        (3e-6, 1.208e-6, 1e-6, VectorRate(9.52e-7, 1e-9, 1e-9)),  # what is far takes no less
        (1e-6, 2e-6, 3e-6, VectorRate(2e-6, 0.0, 1e-6 / 2048)),  # nor anything less than nothing
    ],
)
def test_rows_values_and_distance_are_told_apart_by_three_steps(few: float, long: float, many: float, rate: VectorRate) -> None:
    """A row of 2048 values of few, of 256 of many, and of 2048 of many."""
    assert dataclasses.astuple(_rate(few, long, many)) == pytest.approx(dataclasses.astuple(rate))


def test_a_program_s_rows_are_timed_by_their_names(stage: Stage) -> None:
    def record(recorder: Recorder) -> None:
        x = activations(recorder, 256)
        recorder.add(recorder.rms_norm(recorder.rms_norm(x, np.ones(256, np.float32), 1e-6), np.ones(256, np.float32), 1e-6), x)

    found = stage.parts(record, MANY, 0.001)
    assert found.keys() == {"rows.rms_norm", "rows.add"}
    assert min(found.values()) > 0


def test_a_buffer_has_no_value_that_takes_a_cpu_longer() -> None:
    """As scales of eight bits, where 5 is 2^-122, and as floats of two kinds."""
    values = memory.filled(1 << 16)
    assert values.min() > 5
    for kind in (np.float16, np.float32):
        found = np.abs(values.view(kind).astype(np.float64))
        assert np.finfo(kind).tiny < found.min() <= found.max() < 10


def test_nor_have_the_keys_and_values_that_attention_is_measured_with() -> None:
    byte = np.full(4, ORDINARY, np.uint8)
    assert byte.view(np.int16).max() <= VALUE
    for kind in (np.float16, np.float32):
        assert 1e-25 < byte.view(kind)[0] < 10  # also times another one that is small


@pytest.mark.parametrize(
    ("many", "few", "position", "byte"),
    [(20.0, 8.0, 1.0, 4 / 2048), (8.0, 8.0, 0.0, 8 / 2048), (40.0, 8.0, 2.0, 0.0), (4.0, 8.0, 0.0, 8 / 2048)],
)
def test_heads_and_what_they_share_are_told_apart_by_two_numbers_of_heads(
    many: float, few: float, position: float, byte: float
) -> None:
    """16 and 4 heads with the keys and values of 4, which are 2048 bytes."""
    assert shared(many, few, HEADS, FEW_HEADS) == pytest.approx((position, byte))


@pytest.mark.parametrize(
    ("position", "small", "value", "look"),
    [
        (300.0, 172.0, 1.0, 44.0),
        (256.0, 128.0, 1.0, 0.0),
        (100.0, 100.0, 0.0, 100.0),
        (100.0, 10.0, 0.39, 0.0),
        (0.0, 5.0, 0.0, 0.0),
    ],
)
def test_values_and_positions_are_told_apart_by_heads_of_two_sizes(
    position: float, small: float, value: float, look: float
) -> None:
    """256 values of keys and values together against 128; what noise makes of it stays between nothing and all."""
    assert apart(position, small) == pytest.approx((value, look), abs=2e-3)


def asked(path: Path, **fields: Any) -> dict[str, Any]:
    lists: dict[str, Any] = {"prompts": [16], "gens": [4], "depths": [0, 8], "batches": [1, 2], "threads": [1, 2]}
    return {"path": str(path), "repetitions": 2, "num_gpu": 0} | lists | fields


def test_the_embedded_model_on_the_cpu(demo_model: Path) -> None:
    found = bench(asked(demo_model), lambda *_: None)
    assert [run["n_threads"] for run in found["runs"]] == [1, 2]
    for run in found["runs"]:
        assert run["backend"].startswith("CPU")
        assert run["limit_seconds"] == pytest.approx(run["bytes_per_token"] / run["read_bytes_per_second"])
        assert len(run["tests"]) == 5
        assert all(len(test["samples_ts"]) == 2 and min(test["samples_ts"]) > 0 for test in run["tests"])
        beside = [test["limit_seconds"] for test in run["tests"]]
        assert run["limit_seconds"] == sorted(beside)[2]
        assert beside == pytest.approx([run["bytes_per_token"] / test["read_bytes_per_second"] for test in run["tests"]])
        assert {"attention", "router", "CPU experts", "output", "sampling"} <= run["parts"].keys()


def test_what_lies_before_an_answer_was_written() -> None:
    """Two texts of 130 tokens are three blocks each."""

    class Noted:
        n_vocab, max_rows = 10, 8

        def __init__(self) -> None:
            self.steps: list[Batch] = []
            self.copied: list[tuple[int, int]] = []

        def forward(self, batch: Batch) -> np.ndarray[Any, Any]:
            self.steps.append(batch)
            return np.zeros((1, self.n_vocab), np.float32)

        def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
            assert self.steps[0].positions.tolist() == [0]
            self.copied += pairs

    executor: Any = Noted()
    _writing(executor, Texts(executor, 2, 130), Case(0, 1, 100, 2))()
    assert executor.copied == [(0, 1), (0, 3), (0, 4)]
    assert executor.steps[-1].positions.tolist() == [100, 100]


def test_a_text_longer_than_the_models_context(demo_model: Path) -> None:
    with pytest.raises(ModelError, match="longer than this model's context of 2048"):
        bench(asked(demo_model, prompts=[4096]), lambda *_: None)


def test_disk(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x")
    large.write_bytes(bytes(40 * MIB))
    assert disk.read_speed(small) is None
    speed = disk.read_speed(large)
    assert speed is None or speed > 0  # some file systems have no way past the cache


def test_a_disk_without_a_large_file(tmp_path: Path) -> None:
    speed = disk.folder_speed(tmp_path / "not" / "there")
    assert speed is None or speed > 0
    assert not list(tmp_path.iterdir())
