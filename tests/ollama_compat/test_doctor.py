"""doctor: reading the system, shapes, predictions with known answers, what would help most, and the command."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import gguf
import pytest
import tiny_gguf
from cpu_rates import looks, of_steps, vector

from ollama_compat.cli import doctor as command
from ollama_compat.cli import work
from ollama_compat.cli.root import main
from ollama_compat.doctor import predict, shape, system
from ollama_compat.doctor.diagnosis import Doctor, plain
from ollama_compat.doctor.places import RUNNER_BYTES
from ollama_compat.doctor.predict import Predictor, cycles_per_byte
from ollama_compat.doctor.products import Product
from ollama_compat.doctor.published import MODELS
from ollama_compat.doctor.shape import Shape, Weights

GB = 1e9


def rate(cache: float, memory: float, prompt: float = 1e-12) -> dict[str, float]:
    far = dict.fromkeys(("memory", "memory_four", "memory_eight", "memory_eight_short", "scattered"), memory)
    near = {"cache": cache, "cache_two": cache, "cache_four": cache, "cache_eight": cache, "cache_sixteen": 2 * cache}
    return {**near, "last_cache": 2 * cache, "prompt": prompt, **far}


def machine(types: dict[str, dict[str, float]], **fields: Any) -> dict[str, Any]:
    rates = of_steps() | {"threads": 2, "types": types}
    return {
        "isa": "avx512",
        "isa_executed": ["portable", "avx512"],
        "architectures": ["llama"],
        "threads": 2,
        "thread_bytes": 1,
        "clock": 4e9,
        "kept_share": 1.0,
        "keeps_kernels": True,
        "read_one": 10 * GB,
        "read_all": 20 * GB,
        "reads": [(10 * GB, 20 * GB)],
        "others": 0.0,
        "rates": rates,
        "rates_one": rates,
        "disk": None,
        "gpu": None,
    } | fields


def model(*weights: Weights, **fields: Any) -> Shape:
    values: dict[str, Any] = {
        "name": "m",
        "architecture": "llama",
        "weights": weights,
        "table_bytes": 0,
        "layers": 0,
        "expert_layers": 0,
        "embedding_length": 0,
        "hidden_width": 0,
        "head_count": 0,
        "query_width": 0,
        "cache_bytes": 0,
    }
    return Shape(**(values | fields))


@pytest.mark.parametrize(
    ("weights", "types"),
    [
        ([("Q4_K", 90, 0.1), ("Q6_K", 10, 0.1), ("Q8_0", 500, 1.0)], ("Q4_K", "Q6_K")),
        ([("Q4_K", 97, 0.1), ("Q6_K", 3, 0.1)], ("Q4_K", "Q4_K")),
        ([("Q4_K", 40, 0.1), ("Q6_K", 30, 0.1), ("Q4_K", 20, 0.2), ("Q5_K", 10, 0.1)], ("Q4_K", "Q6_K")),
        ([("Q8_0", 90, 1.0)], ("Q8_0", "Q8_0")),
    ],
)
def test_the_types_of_which_most_of_a_model_is(weights: list[tuple[str, int, float]], types: tuple[str, str]) -> None:
    parts = [Weights(name, 1000 * count, count, share) for name, count, share in weights]
    assert model(*parts, Weights("F16", 1 << 20, 1, last_only=True)).usual_types == types


def this_system(**fields: Any) -> system.System:
    values: dict[str, Any] = {
        "cpu": "a CPU",
        "cores": 2,
        "threads": 2,
        "quota": None,
        "numa_nodes": 1,
        "cache_bytes": 0,
        "memory_total": 16 << 30,
        "memory_available": 8 * GB,
        "modules": None,
        "pinned_limit": None,
        "container": "",
        "wsl": False,
        "driver": None,
    }
    return system.System(**(values | fields))


# ------------------------------------------------------------ the prediction


def test_decode_is_bytes_times_seconds_a_byte() -> None:
    """256 values of Q4_K are 144 bytes; a tenth of the experts is read."""
    weights = Weights("Q4_K", 256_000_000, 0), Weights("Q8_0", 320_000_000, 0, share=0.1)
    found = Predictor(machine({"Q4_K": rate(1e-11, 5e-11), "Q8_0": rate(1e-11, 1e-10)}), 0).predict(model(*weights))
    seconds = 144e6 * 5e-11 + 34e6 * 1e-10
    assert found.decode == pytest.approx(1 / seconds)
    assert found.decode_limit == pytest.approx(20 * GB / 178e6)
    assert found.bound == "memory"


def test_rows_and_attention_are_added() -> None:
    subject = machine({"F32": rate(0, 0)})
    subject["rates"] |= {"step": 1e-5, "row": 1e-6, "row_shared": 3e-6, "looks": looks(attention=1e-12, look=1e-9)}
    experts = {"expert_layers": 4, "expert_count": 8, "expert_used_count": 2}
    width = {"embedding_length": 100, "hidden_width": 200, "query_width": 1000, "head_count": 5}
    shape_ = model(Weights("F32", 1, 0), layers=10, **width, **experts)
    rows = predict.ROWS_ENDS + 6 * predict.ROWS_DENSE + 4 * predict.ROWS_EXPERTS
    looking = 10 * 100 * (1000 * 1e-12 + 5 * 1e-9)
    assert Predictor(subject, 0).decode_seconds(shape_, 99) == pytest.approx(1e-5 + rows * 1e-6 + looking)
    assert Predictor(subject, 0).decode_seconds(shape_, 99, texts=2) == pytest.approx(1e-5 + rows * 3e-6 + 2 * looking)


def test_kernels_that_take_rows_one_by_one_are_added() -> None:
    """Six dense layers and four with two of eight experts, states of 100 values. A single token is one thread's, without
    pieces; two rows are 2000 values at the most, which are near."""
    subject = machine({"F32": rate(0, 0, 0)})
    names = [*subject["rates"]["vectors"]]
    subject["rates"] |= {"vectors": {name: vector(1e-6, 10.0**-place) for place, name in enumerate(names, 6)}}
    subject["rates_one"] = of_steps() | subject["rates"] | {"vectors": {name: vector(1, 1e-9) for name in names}}
    experts = {"expert_layers": 4, "expert_count": 8, "expert_used_count": 2}
    width = {"embedding_length": 100, "hidden_width": 200, "query_width": 100, "head_count": 1}
    shape_ = model(Weights("F32", 1, 0), layers=10, **width, **experts)
    predictor = Predictor(subject, 0)
    each = {"norm": 20 * 100, "pack": 20 * 100 + 10 * 50 + 10 * 200, "gate": 10 * 200, "add": 20 * 100}
    each |= {"combine": 4 * 2 * 100, "choose": 4 * 8 * 2}
    pieces = 20 + (20 + 10 + 6 + 4 * 2) + 6 + 20 + 4 + 4
    values = sum(count * subject["rates"]["vectors"][name]["near"] for name, count in each.items())
    assert predictor.prompt_seconds(shape_, 2) == pytest.approx(2 * (values + pieces * 1e-6))
    assert predictor.decode_seconds(shape_, 0) == pytest.approx(sum(each.values()) * 1e-9)


@pytest.mark.parametrize(("rows", "value"), [(64, 1e-9), (128, 2e-9), (256, 3e-9), (512, 4e-9), (1024, 4e-9)])
def test_values_of_long_steps_are_farther_away(rows: int, value: float) -> None:
    rates = vector(1e-7, 1e-9, 4e-9)
    assert predict._vector(rates, rows, 2048, 2) == pytest.approx(rows * (2048 * value + 2e-7))


def test_a_prompt_turns_and_stores_and_looks_back() -> None:
    """Two layers of ten heads of queries and two of keys and values, ten values each; three tokens: 3 + 2 + 1 looks."""
    subject = machine({"F32": rate(0, 0, 0)})
    in_prompts = {"turn": 1e-9, "turn_value": 1e-10, "begin": 1e-7, "begin_value": 1e-8}
    subject["rates"] |= {"looks": looks(attention_prompt=1e-10, look_prompt=1e-8, **in_prompts)}
    shape_ = model(Weights("F32", 1, 0), layers=2, head_count=10, query_width=200, cache_bytes=2 * 2 * 2 * (10 + 10))
    assert Predictor(subject, 0).prompt_seconds(shape_, 3) == pytest.approx(
        3 * 2 * ((10 + 4) * (1e-9 + 20e-10) + 10 * (1e-7 + 20e-8)) + 2 * 6 * (200 * 1e-10 + 10 * 1e-8)
    )


def test_short_rows_and_heads_cost_beside_their_bytes() -> None:
    """Each of 32 tokens meets half of 500 rows, and 100; three and seven of a chunk of eight count as one more."""
    subject = machine({"F32": rate(0, 0, 0)})
    subject["rates"] |= {"output_prompt": 1e-10, "looks": looks(head=1e-7)}
    shape_ = model(Weights("F32", 1000, 500, 0.5), Weights("F32", 1000, 100), layers=2, head_count=4)
    predictor = Predictor(subject, 0)
    assert predictor.decode_seconds(shape_, 0) == pytest.approx(2 * 4 * 1e-7 + (250 + 100) * 1e-10)
    assert predictor.prompt_seconds(shape_, 32) == pytest.approx(32 * (250 + 100) * 1e-10, rel=0.02)


def test_sums_of_a_prompt_take_what_handing_them_over_takes() -> None:
    """At the least, where their operations are few: 1000 rows of ten values, which 16 tokens meet."""
    subject = machine({"F32": rate(0, 0, 1e-12)})
    for least, seconds in ((1e-11, 2 * 10 * 1e-12), (5e-11, 5e-11)):
        subject["rates"] |= {"output_least": least}
        predicted = Predictor(subject, 0).prompt_seconds(model(Weights("F32", 10_000, 1000)), 16)
        assert predicted == pytest.approx(16 * 1000 * seconds)


def test_keys_and_values_come_from_memory_where_no_cache_holds_them() -> None:
    """Two layers of eight heads that share four's keys and values, 100 values each: 1600 bytes a layer and token."""
    subject = machine({"F32": rate(0, 0, 0)})
    subject["rates"] |= {"looks": looks(attention=1e-12, near=1e-13, kept=1e-10, attention_kept=2e-11)}
    shape_ = model(Weights("F32", 1, 0), layers=2, head_count=8, query_width=1600, cache_bytes=2 * 1600)
    near, far = 2 * 1000 * 1600 * (1e-12 + 1e-13), 2 * 1000 * 1600 * (1e-10 + 2e-11)
    assert Predictor(subject, 0).decode_seconds(shape_, 999) == pytest.approx(far)
    cached = Predictor(subject, 48 * 10**5)  # bytes: one and a half times those of one text
    assert cached.decode_seconds(shape_, 999) == pytest.approx(near, rel=1e-3)
    assert cached.decode_seconds(shape_, 1249) == pytest.approx(1.25 * (near + far) / 2, rel=1e-2)
    assert cached.decode_seconds(shape_, 1499) == pytest.approx(1.5 * far, rel=1e-2)
    assert cached.decode_seconds(shape_, 999, texts=4) == pytest.approx(4 * far)
    subject["rates"] |= {"looks": looks(attention=1e-12, near=1e-13)}  # what memory hides is no less than what the cores need
    assert Predictor(subject, 0).decode_seconds(shape_, 999) == pytest.approx(near)


def test_a_quota_stops_threads() -> None:
    """Two threads, and half a CPU for them."""
    shape_ = model(Weights("Q4_K", 256_000_000, 0))
    free, held = (Predictor(machine({"Q4_K": rate(0, 1e-10)}), 0, quota) for quota in (4.0, 0.5))
    assert free.decode_seconds(shape_, 0) == pytest.approx(144e6 * 1e-10)
    assert held.decode_seconds(shape_, 0) == pytest.approx(4 * 144e6 * 1e-10)
    assert held.prompt_seconds(shape_, 8) == pytest.approx(4 * free.prompt_seconds(shape_, 8))


def test_nothing_to_read_has_no_limit() -> None:
    assert Predictor(machine({"Q4_K": rate(0, 1e-10)}), 0).predict(model()).decode_limit is None


def test_layers_with_a_window_look_no_further_back() -> None:
    subject = machine({"F32": rate(0, 0, 0)})
    subject["rates"] |= {"looks": looks(attention=1e-9, attention_prompt=1e-9)}
    shape_ = model(Weights("F32", 1, 0), layers=3, query_width=10, window=4, window_layers=2)
    assert Predictor(subject, 0).decode_seconds(shape_, 99) == pytest.approx((100 + 2 * 4) * 10e-9)
    assert Predictor(subject, 0).prompt_seconds(shape_, 6) == pytest.approx((21 + 2 * (1 + 2 + 3 + 4 + 4 + 4)) * 10e-9)


@pytest.mark.parametrize(
    ("architecture", "keys", "found"),
    [
        ("gpt-oss", {"attention.sliding_window": 128}, (128, 6)),
        ("gemma3", {"attention.sliding_window": 1024}, (1024, 10)),
        ("gemma2", {}, (4096, 6)),
        ("gemma3", {"attention.sliding_window": 512, "attention.sliding_window_pattern": [True, False] * 6}, (512, 6)),
        ("gemma3", {"attention.sliding_window": 512, "attention.sliding_window_pattern": 0}, (512, 12)),
        ("gemma3", {"attention.sliding_window": 512, "attention.sliding_window_pattern": 2.5}, (512, 10)),
        ("llama", {"attention.sliding_window": 512}, (0, 0)),
    ],
)
def test_windows_as_files_tell_of_them(architecture: str, keys: dict[str, Any], found: tuple[int, int]) -> None:
    assert shape._window({f"{architecture}.{name}": value for name, value in keys.items()}, architecture, 12) == found


def test_a_step_s_rows_share_what_is_read() -> None:
    """Fourteen rows are passes of 8, 4 and 2; the first waits for memory, the others for the cores. Three take a pass of four."""
    weights = {**rate(1e-11, 5e-10, 1e-12), "cache_two": 2e-11, "cache_four": 3e-11}
    weights |= {"scattered": 6e-10, "memory_four": 1e-9, "memory_eight": 3e-9}
    assert Product(weights, values=2.0).seconds(5) == pytest.approx(1e-9 + 1e-11)
    assert Product(weights, values=2.0, width=4096).seconds(14) == pytest.approx(3e-9 + 3e-11 + 2e-11)
    assert Product(weights, values=2.0, spilled=0.0).seconds(10) == pytest.approx(2 * 8 * 2 * 1e-12 + 2e-11)
    assert Product(weights, values=2.0).seconds(3) == Product(weights, values=2.0).seconds(4)
    assert Product(weights, values=2.0).seconds(15) == Product(weights, values=2.0).seconds(16)
    assert Product(weights, values=2.0, scattered=True).seconds(1) == pytest.approx(6e-10)
    assert Product(weights, values=2.0, bandwidth=100.0).seconds(1) == pytest.approx(1e-11)
    assert Product(weights, values=2.0, spilled=0.0, short=1e-9).seconds(8) == pytest.approx(2 * 8 * 2e-12 + 8e-9)


def test_where_a_cpu_multiplies_in_tiles() -> None:
    """Sixteen rows take little more than eight, and 64, which are one pass, 64 * 2 * 2 * 1e-12: of each tile more 32e-12.
    No more than eight are as everywhere."""
    weights = {**rate(1e-12, 0.0, 1e-12), "cache_eight": 140e-12, "cache_sixteen": 160e-12}
    times = {4: 1, 8: 140, 9: 160, 16: 160, 17: 192, 64: 256, 66: 257, 80: 416, 128: 512}
    found = {columns: Product(weights, values=2.0, spilled=0.0).seconds(columns) for columns in times}
    assert found == pytest.approx({columns: most * 1e-12 for columns, most in times.items()})
    assert Product(weights, values=2.0, spilled=0.0, short=1e-12).seconds(16) == pytest.approx(176e-12)


def test_eight_rows_wait_longer_for_long_rows_of_weights() -> None:
    weights = {**rate(1e-12, 1e-10), "memory_eight_short": 2e-10, "memory_eight": 5e-10}
    widths = {64: 2e-10, 512: 2e-10, 1024: 3e-10, 2048: 5e-10, 8192: 5e-10}
    found = {width: Product(weights, values=2.0, width=width).seconds(8) for width in widths}
    assert found == pytest.approx(widths)
    assert Product(weights, values=2.0, width=4096, scattered=True).seconds(8) == pytest.approx(1e-10)


def test_experts_are_chosen_by_chance() -> None:
    """Of two rows that choose one of four: none in 9 of 16 cases, one in 6, both in 1."""
    weights = {**rate(1e-11, 0), "cache_two": 4e-11}
    assert Product(weights, values=2.0).expected(2, 0.25) == pytest.approx((6 * 1e-11 + 4e-11) / 16)


def test_texts_side_by_side_share_the_weights_that_all_read() -> None:
    subject = machine({"Q4_K": rate(0, 1e-10)})
    subject["rates"] |= {"step": 1e-4, "looks": looks(head=1e-6)}
    predictor = Predictor(subject, 0)
    shape_ = model(Weights("Q4_K", 256_000_000, 0), Weights("Q4_K", 2_560_000, 10, last_only=True), layers=1, head_count=3)
    seconds = 1e-4 + 144e6 * 1.01 * 1e-10
    assert predictor.decode_seconds(shape_, 0) == pytest.approx(seconds + 3e-6)
    assert predictor.decode_seconds(shape_, 0, texts=4) == pytest.approx(seconds + 4 * 3e-6)


def test_layers_with_a_state_do_not_look_back() -> None:
    """Three of four layers keep one, of a million values together."""
    subject = machine({"F32": rate(0, 0, 0)})
    subject["rates"] |= {"looks": looks(head=1e-6, attention=1e-9), "state": 1e-10, "state_prompt": 1e-11}
    widths = {"head_count": 3, "query_width": 100, "recurrent_layers": 3, "state_values": 1_000_000}
    shape_ = model(Weights("F32", 1, 0), layers=4, **widths)
    predictor = Predictor(subject, 0)
    assert predictor.decode_seconds(shape_, 9) == pytest.approx(3e-6 + 10 * 100 * 1e-9 + 1e-4)
    assert predictor.decode_seconds(shape_, 9, texts=2) == pytest.approx(2 * (3e-6 + 10 * 100 * 1e-9 + 1e-4))
    assert predictor.prompt_seconds(shape_, 32) == pytest.approx(32 * 1e-5)


def test_a_long_prompt_takes_several_steps() -> None:
    predictor = Predictor(machine({"Q4_K": rate(0, 1e-10, 0)}), 0)
    shape_ = model(Weights("Q4_K", 256_000_000, 0, 0.99))
    assert predictor.prompt_seconds(shape_, 2048) == pytest.approx(4 * 144e6 * 1e-10)
    assert predictor.prompt_seconds(shape_, 2048, most=2048) == pytest.approx(144e6 * 1e-10)
    assert predictor.prompt_seconds(shape_, 2048, most=1536) == pytest.approx(2 * 144e6 * 1e-10)


def test_cores_that_are_slower_than_memory_hold_decode_back() -> None:
    predictor = Predictor(machine({"Q4_K": rate(9e-11, 1e-10)}), 0)
    found = predictor.predict(model(Weights("Q4_K", 256_000_000, 0)))
    assert found.bound == "cores"
    faster = predictor.predict(model(Weights("Q4_K", 256_000_000, 0)), bandwidth=2.0)
    assert faster.decode == pytest.approx(1 / (144e6 * 9e-11))  # no faster than the cores


def test_a_model_that_the_cache_holds_costs_what_the_cores_need() -> None:
    shape_ = model(Weights("Q4_K", 256_000, 0))
    predictor = Predictor(machine({"Q4_K": rate(1e-11, 1e-10)}), 1 << 20)
    assert predictor.decode_seconds(shape_, 0) == pytest.approx(144e3 * 2e-11)
    assert predictor.predict(shape_).decode_limit == pytest.approx(1 / (144e3 * 1e-11))


def test_what_every_token_reads_stays_in_a_cache_that_holds_a_token() -> None:
    """Two thirds of the last cache; a model that fills five sixths of it comes from memory to one half."""
    weights = Weights("Q4_K", 256_000, 0), Weights("Q4_K", 25_600_000, 0, share=0.01)
    subject = machine({"Q4_K": rate(1e-11, 1e-10)})
    assert Predictor(subject, 1 << 20).decode_seconds(model(*weights), 0) == pytest.approx(144e3 * 2e-11 + 144e3 * 1e-10)
    one = model(Weights("Q4_K", 256_000, 0))
    for cache, seconds in ((216_000, 2e-11), (172_800, 6e-11), (144_000, 1e-10)):
        assert Predictor(subject, cache).decode_seconds(one, 0) == pytest.approx(144e3 * seconds)


def test_a_small_model_runs_on_one_thread() -> None:
    subject = machine({"Q4_K": rate(1, 1)}, thread_bytes=8 << 20)
    subject["rates_one"] = subject["rates"] | {"types": {"Q4_K": rate(2e-11, 2e-10)}}
    assert Predictor(subject, 0).decode_seconds(model(Weights("Q4_K", 256_000, 0)), 0) == pytest.approx(144e3 * 2e-10)


def test_a_prompt_is_operations_and_needs_the_output_once() -> None:
    weights = Weights("Q4_K", 1_000_000, 0), Weights("Q6_K", 256_000, 0, last_only=True)
    predictor = Predictor(machine({"Q4_K": rate(1e-11, 2e-11, 1e-12), "Q6_K": rate(1e-11, 1e-10)}), 0)
    assert predictor.prompt_seconds(model(*weights), 96) == pytest.approx(2 * 1e6 * 96 * 1e-12 + 210e3 * 1e-10)


def test_a_prompt_reads_every_expert_that_it_touches() -> None:
    """Two tokens of four experts with one each: 1 - (3/4)**2 of the experts are touched."""
    predictor = Predictor(machine({"Q4_K": rate(1e-11, 1e-10, 1e-15)}), 0)
    seconds = predictor.prompt_seconds(model(Weights("Q4_K", 256_000, 0, share=0.25)), 2)
    assert seconds == pytest.approx(144e3 * (7 / 16) * 1e-10)


def test_a_type_that_the_cpu_does_not_multiply_has_no_prediction() -> None:
    found = Predictor(machine({}), 0).predict(model(Weights("Q4_K", 256_000, 0)))
    assert found.decode is None
    assert found.prompt is None
    assert math.isnan(cycles_per_byte(machine({}), "Q4_K"))


@pytest.mark.parametrize(
    ("isa", "operations"), [("amx", 2048), ("avx512bf16", 256), ("avx512", 256), ("avxvnni", 128), ("avx2", 64), ("portable", 8)]
)
def test_the_limit_of_a_prompt_is_that_of_the_tiers_integer_units(isa: str, operations: int) -> None:
    found = Predictor(machine({"Q4_K": rate(1e-11, 1e-10)}, isa=isa), 0).predict(model(Weights("Q4_K", 256_000, 0)))
    assert found.prompt_limit == pytest.approx(operations * 4e9 * 2 / 512_000)


def test_cycles_a_byte() -> None:
    assert cycles_per_byte(machine({"Q4_K": rate(2.5e-11, 1)}), "Q4_K") == pytest.approx(0.1)


# ------------------------------------------------------------ the diagnosis


def test_what_memory_has_no_room_for_comes_from_the_disk() -> None:
    """1.44 GB of weights where 0.36 GB are left beside the runner: three quarters are read at 1 GB/s for every token."""
    room = 360_000_000 + RUNNER_BYTES
    subject = Doctor(this_system(memory_available=room), machine({"Q4_K": rate(1e-11, 1e-10)}, disk=1e9))
    found = subject.diagnose(model(Weights("Q4_K", 2_560_000_000, 0)))
    assert not found.fits
    assert found.problems == []  # it runs, as slowly as the disk is
    assert (found.place, found.prediction.bound) == ("RAM, 75% of that on the disk", "disk")
    assert 1 / found.prediction.decode == pytest.approx(0.144 + 0.75 * 1.44)
    assert found.change is not None
    assert found.change.what == "1.1 GB more memory"
    assert found.change.factor == pytest.approx((0.144 + 0.75 * 1.44) / 0.144)


def test_without_a_measured_disk_nobody_knows_how_slow() -> None:
    subject = Doctor(this_system(memory_available=1 * GB), machine({"Q4_K": rate(1e-11, 1e-10)}))
    found = subject.diagnose(model(Weights("Q4_K", 2_560_000_000, 0)))
    assert (found.prediction.decode, found.prediction.prompt, found.change) == (None, None, None)


def test_memory_that_not_even_a_runner_fits_is_a_problem() -> None:
    subject = Doctor(this_system(memory_available=1e8), machine({"Q4_K": rate(1e-11, 1e-10)}, disk=1e9))
    assert subject.diagnose(model(Weights("Q4_K", 256, 0))).problems == [
        "it needs 0.4 GB of memory beside its weights, 0.1 GB are available"
    ]


@pytest.mark.parametrize(("nbytes", "problems"), [(600e6, 0), (300e6, 1)])
def test_memory_for_small_models_is_no_problem(nbytes: float, problems: int) -> None:
    found = Doctor(this_system(memory_available=nbytes), machine({})).problems()
    assert len(found) == problems
    assert all("only 300 MB of memory are available" in problem for problem in found)


def test_an_architecture_that_is_not_there_is_a_problem() -> None:
    found = Doctor(this_system(), machine({"Q4_K": rate(1e-11, 1e-10)})).diagnose(
        model(Weights("Q4_K", 256, 0), architecture="mamba")
    )
    assert found.problems == ["this version does not run the architecture 'mamba'"]


def test_memory_helps_where_memory_is_the_limit() -> None:
    subject = Doctor(this_system(), machine({"Q4_K": rate(1e-12, 5e-11)}))
    change = subject.diagnose(model(Weights("Q4_K", 256_000_000, 0))).change
    assert change is not None
    assert change.what == "a second memory channel, if only one is filled"
    assert change.factor == pytest.approx(1.9)


def test_cores_help_where_cores_are_the_limit_and_a_quota_keeps_them_away() -> None:
    subject = Doctor(this_system(cores=8), machine({"Q4_K": rate(4e-10, 4e-10)}))
    change = subject.diagnose(model(Weights("Q4_K", 256_000_000, 0))).change
    assert change is not None
    assert change.what == "all 8 cores instead of 2"
    assert change.factor == pytest.approx(4.0)


def test_fewer_bits_help_most_where_there_are_many() -> None:
    subject = Doctor(this_system(), machine({"F32": rate(1e-12, 5e-11), "Q4_K": rate(1e-12, 5e-11)}))
    change = subject.diagnose(model(Weights("F32", 256_000_000, 0))).change
    assert change is not None
    assert change.what == "the same model in Q4_K_M"
    assert change.factor == pytest.approx(4 * 256 / 144)


def test_infinity_is_no_json() -> None:
    assert plain({"a": (math.inf, 1.0)}) == {"a": [None, 1.0]}


# ------------------------------------------------------------ shapes


def test_the_shape_of_a_file(demo_model: Path) -> None:
    found = shape.of_file(demo_model, "demo-moe")
    assert found.nbytes == pytest.approx(demo_model.stat().st_size, rel=0.1)
    assert 0 < found.bytes_a_token < found.nbytes
    assert found.expert_layers == found.layers > 0
    assert found.expert_count > found.expert_used_count > 0


def test_layers_that_keep_a_state_are_told_apart(tmp_path: Path) -> None:
    found = shape.of_file(tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("qwen3next", "F32")), "m")
    assert 0 < found.recurrent_layers < found.layers
    assert found.state_values > 0
    front, rest = found.split(1)
    assert front.state_values + rest.state_values == pytest.approx(found.state_values, abs=2)


def test_a_model_that_makes_vectors_has_no_decode(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.ENCODERS["bert"])
    found = shape.of_file(path, "m")
    assert found.makes_vectors
    assert not any(part.last_only for part in found.weights)
    types = {name: rate(1e-11, 5e-11) for name in found.types}
    told = Doctor(this_system(), machine(types, architectures=["bert"])).diagnose(found)
    assert (told.problems, told.prediction.decode, told.prediction.decode_limit, told.change) == ([], None, None, None)
    assert told.prediction.prompt is not None
    assert command._row(told)[4:] == ["-", "-", command._speed(told.prediction.prompt), "", "makes vectors and no text"]


PARAMETERS = {  # billions, as their publishers say
    "qwen3-30b-a3b": 30.5,
    "qwen3-235b-a22b": 235.1,
    "mixtral-8x7b": 46.7,
    "gpt-oss-20b": 20.9,
    "gpt-oss-120b": 116.8,
    "qwen3.6-35b-a3b": 34.7,
    "qwen3-next-80b-a3b": 79.7,
    "qwen3.5-122b-a10b": 122.1,
    "glm-4.7-flash": 29.9,
    "glm-4.5-air": 106.9,
    "minimax-m2": 228.7,
    "deepseek-v2-lite": 15.7,
    "deepseek-v3": 671.0,
    "olmoe-1b-7b": 6.9,
    "llama-3.1-8b": 8.03,
    "qwen3-8b": 8.19,
}


@pytest.mark.parametrize("published", MODELS, ids=lambda published: published.name)
def test_published_shapes_add_up_to_the_published_parameters(published: Any) -> None:
    assert published.parameters == pytest.approx(PARAMETERS[published.name], rel=0.02)
    values = sum(part.values for part in published.shape().weights)
    assert values / 1e9 + published.n_vocab * published.embedding_length / 1e9 == pytest.approx(published.parameters, rel=0.01)


# ------------------------------------------------------------ the system


def slot(size: int, speed: int, *places: str) -> bytes:
    """A structure of SMBIOS type 17."""
    raw = bytearray(0x28)
    raw[0], raw[1] = 17, 0x28
    struct.pack_into("<H", raw, 0x0C, size)
    raw[0x10], raw[0x11] = 1, 2
    struct.pack_into("<H", raw, 0x20, speed)
    return bytes(raw) + b"\0".join(place.encode() for place in places) + b"\0\0"


def test_memory_modules_of_the_firmware() -> None:
    tables = [slot(16384, 5600, "DIMM 0", "P0 CHANNEL A"), slot(0, 0, "DIMM 1", "P0 CHANNEL A"),
              slot(16384, 5600, "DIMM 0", "P0 CHANNEL B")]  # fmt: skip
    assert system.modules(tables) == system.Modules(count=2, slots=3, speed=5600, channels=2)
    assert system.modules([b"\x11\x05"]) is None


def test_a_system_from_its_files(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("proc/cpuinfo", "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: A CPU\n")
    write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 500 kB\n")
    write("proc/version", "Linux version 6.6 (Microsoft-standard-WSL2)")
    write("proc/1/environ", "container=podman\0")
    write("sys/fs/cgroup/cpu.max", "150000 100000\n")
    for cpu, siblings in enumerate(("0,1", "0,1", "2,3", "2,3")):
        write(f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", siblings)
    for index, (level, size) in enumerate(((1, "48K"), (2, "1M"), (3, "32M"))):
        write(f"sys/devices/system/cpu/cpu0/cache/index{index}/level", str(level))
        write(f"sys/devices/system/cpu/cpu0/cache/index{index}/size", f"{size}\n")
    found = system.read(tmp_path)
    assert (found.cpu, found.cores, found.quota) == ("A CPU (family 26, model 2)", 2, 1.5)
    assert (found.cache_bytes, found.memory_total, found.memory_available) == (32 << 20, 1000 << 10, 500 << 10)
    assert (found.wsl, found.container, found.numa_nodes) == (True, "podman", 1)


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    found = system.read(tmp_path)
    assert found.memory_total is None
    assert found.memory_available == math.inf
    assert found.modules is None
    assert not found.wsl


# ------------------------------------------------------------ the command


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """A machine of known figures in the place of the measurement; what was asked of it."""
    asked: list[dict[str, Any]] = []

    def run(job: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert job == "machine"
        asked.append(arguments)
        types = {name: rate(1e-11, 5e-11) for name in arguments["types"]}
        return machine(types, architectures=["llama", "qwen3moe"])

    monkeypatch.setattr(work, "run", run)
    monkeypatch.setattr(command.system, "read", lambda: this_system())
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    return asked


def test_json_is_one_document(measured: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "demo-moe", "--all", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert [entry["name"] for entry in document["models"]] == ["demo-moe:latest", *(published.name for published in MODELS)]
    assert document["problems"] == []
    assert err == ""
    assert {"Q4_K", "Q6_K", "MXFP4"} <= set(measured[0]["types"])


def test_the_exit_status_names_what_will_not_work(
    measured: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.system, "read", lambda: this_system(memory_available=2e9))
    monkeypatch.setattr(command.model_file, "largest", lambda: None)
    assert main(["doctor", "--all"]) == 0  # nobody expects all of them to fit
    monkeypatch.setattr(command.system, "read", lambda: this_system(memory_available=1e8))
    assert main(["doctor", "demo-moe"]) == 1
    out, err = capsys.readouterr()
    assert "demo-moe:latest: it needs" in err
    assert "qwen3-30b-a3b" in out


def test_a_store_that_may_not_be_read_is_a_problem_and_all_else_is_told(
    measured: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(command.model_file.os, "listdir", denied)
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "  bandwidth  " in out
    assert f"Error: the folder of models {tmp_path / 'models'} cannot be read: permission denied" in err
    assert measured[0]["disk"] == ""


def test_the_largest_file_of_the_store(tmp_path: Path) -> None:
    environ = {"OLLAMA_MODELS": str(tmp_path)}
    assert command.model_file.largest(environ) is None
    assert command.model_file.unreadable(environ) == ""
    (tmp_path / "blobs").mkdir()
    for name, size in (("sha256-a", 3), ("sha256-b", 9), ("other", 20)):
        (tmp_path / "blobs" / name).write_bytes(bytes(size))
    assert command.model_file.largest(environ) == tmp_path / "blobs/sha256-b"


def test_memory_whose_speed_changes_is_told_of(
    measured: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["doctor"]) == 0
    assert "20.0 by 2\n" in capsys.readouterr().out
    unsteady = machine({name: rate(1e-11, 2e-11) for name in ("Q4_K", "Q6_K")}, reads=[(9 * GB, 36 * GB), (9 * GB, 18 * GB)])
    monkeypatch.setattr(work, "run", lambda *_: unsteady)
    assert main(["doctor"]) == 0
    assert "20.0 by 2 (18.0 to 36.0 within seconds: others" in capsys.readouterr().out


def test_bad_settings_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"OLLAMA_KV_CACHE_TYPE": "q5_x"}
    assert command.model_file.loading(environ)["kv_cache_type"] == "f16"
    command.model_file.store(environ)
    assert capsys.readouterr().err == "no such type of keys and values: OLLAMA_KV_CACHE_TYPE=q5_x; they are kept in f16\n"


@pytest.mark.parametrize(("others", "told"), [(0.94, True), (0.05, False), (None, False)])
def test_other_programs_are_told_of(
    others: float | None,
    told: bool,
    measured: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = machine({name: rate(1e-11, 2e-11) for name in ("Q4_K", "Q6_K")}, others=others)
    monkeypatch.setattr(work, "run", lambda *_: busy)
    assert main(["doctor"]) == 0
    assert ("  busy       other programs had 0.9 cores meanwhile" in capsys.readouterr().out) is told


@pytest.mark.parametrize("kept", [True, False])
def test_kernels_that_are_not_kept_are_told_of(
    kept: bool, measured: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machine({name: rate(1e-11, 2e-11) for name in ("Q4_K", "Q6_K")}, keeps_kernels=kept)
    monkeypatch.setattr(work, "run", lambda *_: found)
    assert main(["doctor"]) == 0
    assert ("  kernels    cannot be kept" in capsys.readouterr().out) is not kept


def test_one_core_reads_by_itself(
    measured: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machine({name: rate(1e-11, 2e-11) for name in ("Q4_K", "Q6_K")}, threads=1)
    monkeypatch.setattr(work, "run", lambda *_: found)
    monkeypatch.setattr(command.system, "read", lambda: this_system(threads=1))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "2 physical, 1 logical allowed; models run on up to 1 thread\n" in out
    assert "10.0 GB/s read by one thread\n" in out


def test_a_machine_that_tells_nothing(
    measured: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.system, "read", lambda: this_system(memory_total=0, memory_available=math.inf))
    assert main(["doctor", "demo-moe"]) == 0
    assert "  memory     not told\n" in capsys.readouterr().out
    assert measured[0]["free_bytes"] == 0


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"general.type": "adapter"}, "is an adapter: name the model"),
        ({"general.type": "mmproj"}, "is the part of a model that sees or hears"),
        ({}, "has no weights"),
    ],
)
@pytest.mark.parametrize("name", ["doctor", "bench", "ab"])
def test_files_that_are_no_model_by_themselves(
    name: str, metadata: dict[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "part.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert main([name, str(path)]) == 1
    out, err = capsys.readouterr()
    assert (out, err[:16], said in err) == ("", "Error: part.gguf", True)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("folder", "is a folder: name the GGUF file in it"),
        ("nothing.gguf", "there is no file"),
        ("./nothing", "there is no file"),
        ("a" * 5000, "invalid model name"),
    ],
)
def test_paths_that_are_no_file(
    word: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    assert main(["doctor", word]) == 1
    assert said in capsys.readouterr().err


def test_a_model_that_there_is_not(measured: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "nobody"]) == 1
    assert "not found" in capsys.readouterr().err
    assert not measured
