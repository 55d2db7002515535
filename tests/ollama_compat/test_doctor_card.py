"""doctor where a card takes layers: predictions with known answers, where a model lies, and what would help."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cpu_rates import of_steps

from ollama_compat.cli import doctor as command
from ollama_compat.doctor.card import DENSE_LAUNCHES, VOCABULARY, CardPredictor
from ollama_compat.doctor.diagnosis import Doctor
from ollama_compat.doctor.places import RUNNER_BYTES, Place, Speeds
from ollama_compat.doctor.shape import Shape, Weights
from ollama_compat.doctor.system import System

GB = 1e9
Q4_K, Q6_K = 256 / 144, 256 / 210  # values a byte
LAYERS, EXPERTS, USED = 10, 8, 2
RATES = {
    "layer_bytes": 10_000_000,
    "expert_bytes": {"Q4_K": 20_000_000},
    "stack_bytes": 80_000_000,
    "output_bytes": 100_000_000,
    "operations": [4e7, 6e7],
    "head": 3e-4,
    "output": 1e-4,  # so the card's products read 1 TB a second
    "layer": 5e-5,
    "experts": 4e-5,
    "handed": 5.6e-4,
    "position": 1e-13,
    "narrow": {
        "layer_bytes": 2_000_000,
        "operations": [1e7, 1.5e7],
        "layer": 4e-5,
        "steps": [
            {"rows": 64, "head": 5e-4, "layer": 2e-3, "streamed": 3e-3},
            {"rows": 512, "head": 1e-3, "layer": 1e-3, "streamed": 8e-3},
            {"rows": 2048, "head": 1e-3, "layer": 3e-3, "streamed": 9e-3},
        ],
    },
    "steps": [
        {"rows": 64, "head": 5e-4, "layer": 2e-3, "streamed": 3e-3},
        {"rows": 512, "head": 1e-3, "layer": 2e-3, "streamed": 8e-3},
        {"rows": 2048, "head": 1e-3, "layer": 6e-3, "streamed": 9e-3},
    ],
}
FAR = "memory", "memory_four", "memory_eight", "memory_eight_short", "scattered"
NEAR = ("cache", "cache_two", "cache_four", "cache_eight", "cache_sixteen")
RATE = dict.fromkeys(FAR, 2e-11) | dict.fromkeys(NEAR, 1e-12) | {"cache_sixteen": 2e-12, "last_cache": 1e-11, "prompt": 1e-12}
MACHINE: dict[str, Any] = {
    "isa": "avx512",
    "architectures": ["llama"],
    "threads": 8,
    "thread_bytes": 1,
    "clock": 4e9,
    "kept_share": 1.0,
    "read_all": 50 * GB,
    "reads": [(10 * GB, 50 * GB)],
    "rates": of_steps() | {"threads": 8, "types": {"Q4_K": RATE}},
    "rates_one": of_steps() | {"threads": 1, "types": {"Q4_K": RATE}},
    "gpu": {
        **{"rates": RATES, "memory_read": 2e12, "memory_free": 24 * GB, "to_card": 20 * GB, "from_card": 20 * GB},
        **{"to_card_beside_reads": 20 * GB, "read_beside_copies": 40 * GB, "pcie": False},
    },
}
SYSTEM = System("a CPU", 8, 8, None, 1, 0, 64 << 30, 48 * GB, None, None, "", False, None)


def known(**fields: Any) -> Shape:
    """A model of ten of the layers that were measured."""
    weights = (
        Weights("Q4_K", int(LAYERS * RATES["layer_bytes"] * Q4_K), 0),
        Weights("Q4_K", int(LAYERS * 80_000_000 * Q4_K), 0, share=USED / EXPERTS),
        Weights("Q4_K", int(RATES["output_bytes"] * Q4_K), VOCABULARY, last_only=True),
    )
    shape = Shape("m", "llama", weights, 0, LAYERS, LAYERS, 2048, 1536, 32, 8192, 1024, EXPERTS, USED, 4096)
    return dataclasses.replace(shape, **fields)


def test_the_known_layers_take_what_they_took() -> None:
    subject = CardPredictor(MACHINE)
    there, handed = (subject.decode_seconds(known(), [share] * LAYERS, 0) for share in (1.0, 0.0))
    assert there == pytest.approx(RATES["head"] + LAYERS * (RATES["layer"] + RATES["experts"]), rel=1e-4)
    assert handed == pytest.approx(RATES["head"] + LAYERS * RATES["handed"], rel=1e-4)


def test_card_and_cpu_compute_side_by_side() -> None:
    """The hand-off takes 560 - 50 - 400 = 110 us; half of the experts 200 us of the CPU, while the card does its half."""
    half = CardPredictor(MACHINE).decode_seconds(known(), [0.5] * LAYERS, 0)
    assert half == pytest.approx(RATES["head"] + LAYERS * (RATES["layer"] + 110e-6 + 200e-6), rel=1e-4)


def machine_with(**fields: Any) -> dict[str, Any]:
    """Another card."""
    return MACHINE | {"gpu": MACHINE["gpu"] | fields}


def test_a_card_reads_experts_itself_where_tokens_gain_by_it() -> None:
    """Half of two experts of 10 MB: 400 us of the CPU become 250, since its reads are slower by a quarter then."""
    alone, slow, fast = (
        CardPredictor(machine_with(pcie=pcie, to_card_beside_reads=bus * GB)).decode_seconds(known(), [0.0] * LAYERS, 0)
        for pcie, bus in ((False, 60), (True, 20), (True, 60))
    )
    assert slow == alone  # 500 us over the bus
    assert alone - fast == pytest.approx(LAYERS * 150e-6, rel=1e-4)


def test_layers_that_were_handed_over_tell_how_fast_an_undisturbed_cpu_is() -> None:
    """Products were timed at 800 us a layer while somebody else read memory, and layers took 560 in all a moment later."""
    slower = of_steps() | {"threads": 8, "types": {"Q4_K": RATE | {"scattered": 4e-11}}}
    found = CardPredictor(MACHINE | {"rates": slower}).decode_seconds(known(), [0.0] * LAYERS, 0)
    assert found == pytest.approx(RATES["head"] + LAYERS * RATES["handed"], rel=1e-4)


def test_bytes_and_positions_are_added() -> None:
    shape = known()
    heavier = dataclasses.replace(shape, weights=(Weights("Q4_K", 2 * shape.weights[0].values, 0), *shape.weights[1:]))
    subject, there = CardPredictor(MACHINE), [1.0] * LAYERS
    before = subject.decode_seconds(shape, there, 0)
    assert subject.decode_seconds(heavier, there, 0) - before == pytest.approx(100e6 / 1e12, rel=1e-4)
    assert subject.decode_seconds(shape, there, 1000) - before == pytest.approx(LAYERS * 8192 * 1000 * 1e-13)


def layers_of(nbytes: int, operations: float) -> Shape:
    """Ten of them without experts, in Q4_K, and nothing else."""
    values = int(LAYERS * (nbytes * Q4_K if nbytes else operations / 2))
    return dataclasses.replace(known(), weights=(Weights("Q4_K", values, 0),), expert_layers=0)


@pytest.mark.parametrize(("nbytes", "seconds"), [(1_000_000, 4e-5), (6_000_000, 4.5e-5), (30_000_000, 7e-5)])
def test_a_layer_lies_between_the_known_ones(nbytes: int, seconds: float) -> None:
    """2 MB took 40 us and 10 MB 50; more bytes come at 1 TB a second."""
    shape = layers_of(nbytes, 0)
    beside = RATES["head"] - RATES["output"] - 4 * VOCABULARY / MACHINE["gpu"]["from_card"]
    assert CardPredictor(MACHINE).decode_seconds(shape, [], 0) == pytest.approx(beside + LAYERS * seconds, rel=1e-4)


@pytest.mark.parametrize(("operations", "seconds"), [(1e7, 3e-3), (6.25e7, 4.5e-3), (2e8, 12e-3)])
def test_a_prompts_layer_lies_between_the_known_ones(operations: float, seconds: float) -> None:
    """Of 2048 rows: 2.5e7 operations a token took 3 ms, 1e8 took 6."""
    found = CardPredictor(MACHINE).prompt_seconds(layers_of(0, operations), [], 2048, 2048)
    assert found == pytest.approx(1e-3 + LAYERS * seconds, rel=1e-4)


def test_the_limit_is_reading_from_both_memories() -> None:
    seconds = CardPredictor(MACHINE).limit_seconds(known(), [0.5] * LAYERS)
    assert seconds == pytest.approx(100e6 / (50 * GB) + (100e6 + 100e6 + 100e6) / 2e12, rel=1e-4)


def test_a_prompt_waits_for_the_bus_or_for_the_card() -> None:
    """80 MB of experts a layer at 10 GB/s, as they were streamed, take 8 ms; the known layer has 1e8 operations a token."""
    shape = known()
    products = 2 * sum(part.values * part.share for part in shape.weights[:2]) / LAYERS
    subject, there, absent = CardPredictor(MACHINE), [1.0] * LAYERS, [0.0] * LAYERS
    large = subject.prompt_seconds(shape, there, 2048, 2048)
    assert large == pytest.approx(1e-3 + LAYERS * 6e-3 * products / 1e8)
    streamed = 1e-3 + LAYERS * 8e-3 + 6e-3 * products / 1e8
    assert subject.prompt_seconds(shape, absent, 2048, 2048) == pytest.approx(streamed, rel=1e-4)
    assert subject.prompt_seconds(shape, there, 4096, 2048) == pytest.approx(2 * large)
    assert subject.prompt_seconds(shape, there, 128, 2048) == pytest.approx(1e-3 + LAYERS * 2e-3)  # launching
    dense = dataclasses.replace(shape, weights=shape.weights[:1], expert_layers=0)
    assert subject.prompt_seconds(dense, [], 128, 2048) == pytest.approx(1e-3 + LAYERS * DENSE_LAUNCHES * 2e-3)


def diagnosis(placement: dict[str, Any] | None, **fields: Any) -> Any:
    return Doctor(SYSTEM, MACHINE).diagnose(known(**fields), placement=placement)


def placed(share: float, first: int = 0, whole: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"first": first, "resident": [share] * (LAYERS - first), "vram": 0, "rows": 2048, "whole": whole}


def test_the_prediction_is_for_where_the_model_lies() -> None:
    no_room = {"refused": "no room", "whole": None}
    all_there, part, ram, refused = (diagnosis(each) for each in (placed(1.0), placed(0.5), placed(0.0), no_room))
    assert [each.place for each in (all_there, part, ram, refused)] == [
        *("card", "card, 50% of the experts in RAM", "card, experts in RAM", "RAM"),
    ]
    assert all_there.prediction.decode > part.prediction.decode > ram.prediction.decode
    assert (all_there.prediction.bound, ram.prediction.bound) == ("card", "RAM")
    assert refused.prediction == refused.elsewhere["CPU"]
    assert ram.prediction.decode == ram.elsewhere["experts in RAM"].decode
    assert list(ram.elsewhere) == ["CPU", "experts in RAM", "half of the experts in VRAM", "all in VRAM"]


def test_room_for_the_experts_helps_most() -> None:
    assert diagnosis(placed(0.0)).change.what == "1 GB more VRAM"
    assert diagnosis(placed(1.0)).change is None


def test_a_dense_model_lies_on_the_card_as_a_whole() -> None:
    shape = known()
    dense = dataclasses.replace(shape, weights=(shape.weights[0], shape.weights[2]), expert_layers=0, expert_count=0)
    found = Doctor(SYSTEM, MACHINE).diagnose(dense, placement=placed(1.0) | {"resident": []})
    assert found.place == "card"
    assert list(found.elsewhere) == ["CPU", "all in VRAM"]


def test_without_timed_layers_the_cpu_is_predicted() -> None:
    machine = MACHINE | {"gpu": MACHINE["gpu"] | {"rates": None}}
    found = Doctor(SYSTEM, machine).diagnose(known(), placement=placed(1.0))
    assert found.place == "RAM"
    assert list(found.elsewhere) == ["CPU"]


def test_the_table_of_where_it_could_lie() -> None:
    lines = command._elsewhere(diagnosis(placed(0.0))).splitlines()
    assert [line.split("  ")[0] for line in lines[4:]] == ["CPU", "experts in RAM", "half of the experts in VRAM", "all in VRAM"]


def test_layers_before_those_of_the_card_cost_what_the_cpu_needs() -> None:
    """Four of ten layers: 10 + 20 MB a token each at 2e-11 s a byte."""
    found = diagnosis(placed(1.0, first=4))
    assert found.place == "card, the first 4 of 10 layers on the CPU"
    _, rest = known().split(4)
    card = CardPredictor(MACHINE).decode_seconds(rest, [1.0] * 6, 0)
    assert 1 / found.prediction.decode == pytest.approx(4 * 30e6 * 2e-11 + card, rel=1e-3)
    assert found.prediction.prompt < diagnosis(placed(1.0)).prediction.prompt
    assert found.change.what == "0 GB more VRAM"


@pytest.mark.parametrize(("rows", "reads"), [(2048, 1), (512, 4), (600, 4)])
def test_layers_before_those_of_the_card_get_its_steps_as_a_whole(rows: int, reads: int) -> None:
    """Four of ten layers of 90 MB, whose weights come at 2e-11 s a byte once in each step; multiplying them takes no time."""
    rates = MACHINE["rates"] | {"types": {"Q4_K": RATE | dict.fromkeys((*NEAR, "prompt"), 0.0)}}
    speeds = Speeds(SYSTEM, MACHINE | {"rates": rates})
    place = speeds.place(known(), placed(1.0, first=4) | {"rows": rows})
    _, rest = known().split(4)
    card = speeds.predict(rest, Place("", (1.0,) * 6, rows, on_card=True), 0, 2048).prompt
    front = 2048 / speeds.predict(known(), place, 0, 2048).prompt - 2048 / card
    assert front == pytest.approx(reads * 4 * 90e6 * 2e-11, rel=1e-3)


def test_as_many_whole_layers_as_fit_stand_beside() -> None:
    found = diagnosis(placed(0.0, whole={"first": 4, "resident": [1.0] * 6, "rows": 512}))
    beside = found.elsewhere["6 of 10 layers as a whole on the card"]
    assert beside.decode == diagnosis(placed(1.0, first=4)).prediction.decode


def test_a_split_shape_has_all_of_the_whole() -> None:
    shape = dataclasses.replace(known(), expert_layers=8)
    front, rest = shape.split(5)
    assert (front.layers, front.expert_layers, rest.layers, rest.expert_layers) == (5, 3, 5, 5)
    assert front.nbytes + rest.nbytes == pytest.approx(shape.nbytes, rel=1e-6)
    assert not any(part.last_only for part in front.weights)
    assert shape.split(0)[1].bytes_a_token == shape.bytes_a_token


def test_what_neither_card_nor_memory_hold_comes_from_the_disk() -> None:
    """800 MB of experts beside the card, memory for 400 MB of them: half of the 200 MB of a token come at 1 GB/s."""
    room = 400e6 + RUNNER_BYTES + 4096 * 1024
    system = dataclasses.replace(SYSTEM, memory_available=room)
    found = Doctor(system, MACHINE | {"disk": 1e9}).diagnose(known(), placement=placed(0.0))
    assert found.place == "card, experts in RAM, 50% of that on the disk"
    assert 1 / found.prediction.decode - 1 / diagnosis(placed(0.0)).prediction.decode == pytest.approx(0.1, rel=1e-3)
    all_there = Doctor(system, MACHINE | {"disk": 1e9}).diagnose(known(), placement=placed(1.0))
    assert all_there.place == "card"
