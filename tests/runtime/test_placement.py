"""When torch is worth importing, and what a machine with a GPU and without torch is told."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from runtime.execute.placement import wants_gpu


@pytest.fixture
def driver(tmp_path: Path) -> tuple[Path, ...]:
    (tmp_path / "version").touch()
    return (tmp_path / "version",)


CASES = [(-1, False, False), (99, False, True), (0, False, False), (99, True, False)]


@pytest.mark.parametrize(("num_gpu", "embedding", "wanted"), CASES)
def test_with_driver_and_torch(
    num_gpu: int, embedding: bool, wanted: bool, driver: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert wants_gpu(num_gpu, embedding, driver) is wanted


def test_without_a_driver(tmp_path: Path) -> None:
    assert not wants_gpu(-1, False, (tmp_path / "version",))


def test_without_torch_the_log_names_the_remedy(
    driver: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not wants_gpu(-1, False, driver)
    assert "pip install 'moellama[cuda]'" in caplog.text
