from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_compat import cgroup
from runtime.kernels import cores


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


Cpus = Callable[[Path], float]
BOTH = pytest.mark.parametrize("cpus", [cores.granted, cgroup.cpus], ids=["runtime", "server"])  # each world has its own


@BOTH
def test_every_group_on_the_way_may_grant_less(tmp_path: Path, cpus: Cpus) -> None:
    assert cpus(tmp_path) == math.inf
    write(tmp_path, "sys/fs/cgroup/cpu.max", "max 100000")
    write(tmp_path, "proc/self/cgroup", "0::/a/b")
    assert cpus(tmp_path) == math.inf
    write(tmp_path, "sys/fs/cgroup/a/cpu.max", "150000 100000")
    write(tmp_path, "sys/fs/cgroup/a/b/cpu.max", "400000 100000")
    assert cpus(tmp_path) == 1.5


@BOTH
def test_groups_of_the_first_version(tmp_path: Path, cpus: Cpus) -> None:
    write(tmp_path, "proc/self/cgroup", "5:memory:/docker/2\n4:cpu,cpuacct:/docker/1")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert cpus(tmp_path) == math.inf
    write(tmp_path, "sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us", "250000")
    write(tmp_path, "sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us", "100000")
    assert cpus(tmp_path) == 2.5


@BOTH
@pytest.mark.parametrize("text", ["", "what", "1", "0 0", "0 100000", "100000 x"])
def test_limits_that_nobody_understands_are_none(tmp_path: Path, cpus: Cpus, text: str) -> None:
    write(tmp_path, "sys/fs/cgroup/cpu.max", text)
    assert cpus(tmp_path) == math.inf


def test_no_more_threads_than_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 2, 5})
    monkeypatch.setattr(cores, "granted", lambda: math.inf)
    assert [cores.usable(wanted) for wanted in (0, 1, 3, 4, 1024)] == [0, 1, 3, 3, 3]
    monkeypatch.setattr(cores, "granted", lambda: 1.5)
    assert [cores.usable(wanted) for wanted in (0, 2, 8)] == [0, 2, 2]
    monkeypatch.setattr(cores, "granted", lambda: 0.2)
    assert cores.usable(8) == 1
