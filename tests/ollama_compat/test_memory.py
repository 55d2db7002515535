from __future__ import annotations

import math
from pathlib import Path

import pytest

from ollama_compat import memory

GROUPS = "sys/fs/cgroup"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def group(folder: str, limit: str) -> dict[str, str]:
    stat = "anon 3\ninactive_file 20000\n"
    return {f"{folder}/memory.max": limit, f"{folder}/memory.current": "50000", f"{folder}/memory.stat": stat}


@pytest.fixture
def system(tmp_path: Path) -> Path:
    return write(tmp_path, {"proc/meminfo": "MemTotal:  200 kB\nMemAvailable:    100 kB"})


@pytest.mark.parametrize(("limit", "free"), [("max", 102400), ("80000", 50000), ("1000000", 102400), ("10000", 0)])
def test_a_container_may_have_less_than_the_system(system: Path, limit: str, free: int) -> None:
    assert memory.available(write(system, group(GROUPS, limit))) == free


def test_a_group_above_may_have_less(system: Path) -> None:
    files = group(f"{GROUPS}/a.slice", "60000") | group(f"{GROUPS}/a.slice/b.scope", "80000")
    write(system, files | {"proc/self/cgroup": "0::/a.slice/b.scope"})
    assert memory.available(system) == 30000


def test_a_group_that_cannot_be_seen(system: Path) -> None:
    """A container's own group is the topmost one there, whatever its name outside."""
    write(system, group(GROUPS, "80000") | {"proc/self/cgroup": "0::/docker/1234"})
    assert memory.available(system) == 50000


def test_groups_of_the_first_version(system: Path) -> None:
    folder = f"{GROUPS}/memory/docker/1"
    files = {"memory.limit_in_bytes": "80000", "memory.usage_in_bytes": "50000", "memory.stat": "total_inactive_file 20000"}
    write(system, {f"{folder}/{name}": text for name, text in files.items()})
    write(system, {"proc/self/cgroup": "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1"})
    assert memory.available(system) == 50000
    write(system, {f"{folder}/memory.limit_in_bytes": "9223372036854771712"})
    assert memory.available(system) == 102400


@pytest.mark.parametrize("text", ["", "what", "1", "0 0", "100000 x"])
def test_limits_that_nobody_understands_are_none(tmp_path: Path, text: str) -> None:
    write(tmp_path, {f"{GROUPS}/memory.max": text})
    assert memory.available(tmp_path) == math.inf
