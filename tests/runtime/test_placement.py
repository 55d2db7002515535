"""What goes to a card, and when torch is worth importing; no card is needed for either."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from runtime.execute.placement import SLACK, STAGES, WORTH_WHILE, Needs, NoRoom, plan, wants_gpu

GIB = 1 << 30
MOE = Needs(layers=48, dense=GIB, experts=((128, 3 << 20),) * 48, block=6 << 20, blocks=64, step=GIB // 2)
FIXED = MOE.dense + MOE.block * MOE.blocks + MOE.step + SLACK
EXPERTS = 48 * 128 * (3 << 20)
STAGING = STAGES * 128 * (3 << 20)


@pytest.fixture
def driver(tmp_path: Path) -> tuple[Path, ...]:
    (tmp_path / "version").touch()
    return (tmp_path / "version",)


LARGE, SMALL = WORTH_WHILE, WORTH_WHILE - 1
CASES = [
    (-1, False, LARGE, True),
    (-1, False, SMALL, False),
    (99, False, SMALL, True),
    (0, False, LARGE, False),
    (99, True, LARGE, False),
]


@pytest.mark.parametrize(("num_gpu", "embedding", "nbytes", "wanted"), CASES)
def test_with_driver_and_torch(
    num_gpu: int, embedding: bool, nbytes: int, wanted: bool, driver: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert wants_gpu(num_gpu, embedding, nbytes, driver) is wanted


def test_without_a_driver(tmp_path: Path) -> None:
    assert not wants_gpu(-1, False, LARGE, (tmp_path / "version",))


def test_without_torch_the_log_names_the_remedy(
    driver: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not wants_gpu(-1, False, LARGE, driver)
    assert "pip install 'moellama[cuda]'" in caplog.text


def test_everything_fits() -> None:
    chosen = plan(MOE, FIXED + EXPERTS)
    assert chosen.resident == (128,) * 48
    assert chosen.words == "all 48 layers on GPU 0 (19.0 GiB)"
    assert chosen.vram == MOE.dense + MOE.block * MOE.blocks + EXPERTS


def test_one_byte_less_needs_staging_buffers() -> None:
    chosen = plan(MOE, FIXED + EXPERTS - 1)
    assert 0 < min(chosen.resident) == max(chosen.resident) < 128
    held = sum(chosen.resident) * (3 << 20)
    assert FIXED + STAGING + held <= FIXED + EXPERTS - 1


@pytest.mark.parametrize("room", [0, GIB, 5 * GIB, 12 * GIB])
def test_never_more_than_there_is(room: int) -> None:
    vram = FIXED + STAGING + room
    chosen = plan(MOE, vram, 1)
    assert FIXED + STAGING + sum(chosen.resident) * (3 << 20) <= vram
    assert sum(chosen.resident) * (3 << 20) >= room - 48 * (3 << 20)  # less than an expert of each layer is left over
    assert chosen.words.startswith("48 layers' attention on GPU 1 (1.0 GiB), 6144 experts in RAM (18.0 GiB)")
    assert ("also in VRAM" in chosen.words) is (sum(chosen.resident) > 0)


def test_experts_that_the_user_keeps_in_ram() -> None:
    every = plan(MOE, FIXED + EXPERTS + STAGING, num_cpu_moe=1 << 16)
    assert every.resident == (0,) * 48
    assert plan(MOE, FIXED + EXPERTS + STAGING, num_cpu_moe=40).resident == (0,) * 40 + (128,) * 8
    assert plan(MOE, FIXED + EXPERTS + STAGING, most=64).resident == (64,) * 48


def test_room_that_some_layers_leave_goes_to_the_others() -> None:
    room = FIXED + STAGING + 4 * GIB
    assert max(plan(MOE, room, num_cpu_moe=24).resident) > max(plan(MOE, room).resident)


def test_a_small_card_stages_one_layer() -> None:
    assert plan(MOE, FIXED + STAGING - 1).stages == 1
    assert plan(MOE, FIXED + STAGING).stages == 2
    assert plan(MOE, FIXED + EXPERTS).stages == 0


STAGE = STAGING // STAGES


@pytest.mark.parametrize(("vram", "missing"), [(FIXED - (300 << 20), "300 MiB"), (FIXED + STAGE - (200 << 20), "200 MiB")])
def test_no_room_says_how_much_is_missing(vram: int, missing: str) -> None:
    with pytest.raises(NoRoom, match=missing):
        plan(MOE, vram)


def test_a_dense_model() -> None:
    dense = Needs(layers=28, dense=GIB, experts=(), block=1 << 20, blocks=10, step=1 << 20)
    assert plan(dense, 3 * GIB).words == "all 28 layers on GPU 0 (1.0 GiB)"
    with pytest.raises(NoRoom):
        plan(dense, GIB)
