"""The line about a GPU that is not used."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ollama_compat import hardware


def test_no_driver_no_line(tmp_path: Path) -> None:
    assert hardware.notice((tmp_path / "version",)) == ""


@pytest.mark.parametrize(("torch", "words"), [(None, "pip install 'moellama[cuda]'"), (object(), "on the CPU only")])
def test_driver_without_and_with_torch(torch: object, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "version").touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: torch)
    assert words in hardware.notice((tmp_path / "version",))
