"""What a load would do, said without one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tiny_gguf

from runtime import explain
from runtime.execute import cards
from runtime.execute.cards import Card
from runtime.frames import Load

GIB = 1 << 30


def words(path: Path, **fields: Any) -> str:
    request = Load(str(path), num_ctx=512, num_parallel=1, **fields)
    return str(explain.placement(dataclasses.asdict(request), lambda *_: None)["placement"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("qwen3moe", "F32"))


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A card with so many bytes free; there may be more."""
    free = [24 * GIB]
    monkeypatch.setattr(explain, "wants_gpu", lambda num_gpu, *_: num_gpu != 0)
    monkeypatch.setattr(cards, "known", lambda: [Card(f"GPU-{number}", nbytes) for number, nbytes in enumerate(free)])
    return free


def test_without_a_card(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "wants_gpu", lambda *_: False)
    assert words(path) == "2 layers on the CPU (14 MiB)"


def test_with_a_card(path: Path, free: list[int]) -> None:
    assert words(path) == "all 2 layers on GPU 0 (14 MiB)"
    assert words(path, num_gpu=2).startswith("the first layer on the CPU (")
    assert words(path, num_gpu=0) == "2 layers on the CPU (14 MiB)"
    assert words(path, num_cpu_moe=99).endswith(", 16 experts in RAM (12 MiB)")


def test_a_card_that_is_full_or_unknown(path: Path, free: list[int]) -> None:
    free[0] = GIB // 8
    assert "GPU 0 cannot be used, it has 128 MiB free, and " in words(path)
    free.clear()
    assert words(path) == "2 layers on the CPU (14 MiB)"


def test_of_several_cards_the_one_with_room_or_the_one_that_is_asked_for(path: Path, free: list[int]) -> None:
    free.append(25 * GIB)
    assert words(path) == "all 2 layers on GPU 1 (14 MiB)"
    assert words(path, main_gpu=0) == "all 2 layers on GPU 0 (14 MiB)"
    assert words(path, main_gpu=2).endswith("GPU 2 cannot be used, there is no such card, but 2")
