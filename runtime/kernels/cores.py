"""How many threads pay: physical cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_ROOT = Path("/")


def physical() -> int:
    """Cores of the affinity mask, hyper-threads counted once, no more than a container's CPU quota."""
    cores = {_siblings(cpu) for cpu in _allowed()}
    return max(1, round(min(len(cores), granted())))


def usable(wanted: int) -> int:
    """Of `wanted` threads those that can run at the same time, hyper-threads included: more would only take turns."""
    return min(wanted, max(1, math.ceil(min(len(_allowed()), granted()))))


def _allowed() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _siblings(cpu: int) -> str:
    try:
        return Path(_TOPOLOGY.format(cpu)).read_text().strip()
    except OSError:
        return str(cpu)


# What follows is ollama_compat.cgroup's too: the border between the worlds is not widened for it. A test holds both to the same.


def granted(root: Path = _ROOT) -> float:
    """CPUs that the control groups of this process grant, its own and those above; infinity where they set no limit."""
    new = (_ratio(_words(folder / "cpu.max")) for folder in _folders(root, ""))
    old = (
        _ratio([*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]) for folder in _folders(root, "cpu")
    )
    return min(*new, *old, math.inf, math.inf)


def _folders(root: Path, controller: str) -> list[Path]:
    """The topmost group, which in a container is its own, and those on the way to this process's."""
    top = found = root / "sys/fs/cgroup" / controller
    folders = [top]
    for line in _words(root / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controller in controllers.split(","):
            for name in path.strip("/").split("/"):
                found = found / name
                folders.append(found)
    return folders


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _ratio(words: list[str]) -> float:
    """Of a quota and its period."""
    try:
        quota, period = map(int, words)
    except ValueError:  # "max", or nothing there
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf
