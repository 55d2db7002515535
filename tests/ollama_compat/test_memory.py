from __future__ import annotations

import math
from pathlib import Path

import pytest

from ollama_compat import memory


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:  200 kB\nMemAvailable:    100 kB\n")
    return path


def group(folder: Path, limit: str) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("50000\n")
    (folder / "memory.stat").write_text("anon 3\ninactive_file 20000\n")
    return folder


@pytest.mark.parametrize(("limit", "free"), [("max", 102400), ("80000", 50000), ("1000000", 102400), ("10000", 0)])
def test_a_container_may_have_less_than_the_system(tmp_path: Path, meminfo: Path, limit: str, free: int) -> None:
    assert memory.available(meminfo, group(tmp_path, limit)) == free


def test_unknown(tmp_path: Path) -> None:
    assert memory.available(tmp_path / "nothing", tmp_path) == math.inf
