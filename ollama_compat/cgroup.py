"""The control groups that this process is in: of Linux's both versions, with every group above, since each may set a limit.

`runtime.kernels.cores` reads `cpus` for itself: forty lines are too little to widen the border between the two worlds. A test
holds both to the same.
"""

from __future__ import annotations

import math
from pathlib import Path

_ROOT = Path("/")
_UNLIMITED = 1 << 60  # bytes: version 1 writes a number of about 2**63 where there is no limit
_NEW = ""  # the controller under which /proc/self/cgroup lists the group of version 2


def cpus(root: Path = _ROOT) -> float:
    """CPUs that the groups grant; infinity where they set no limit."""
    new = (_ratio(_words(folder / "cpu.max")) for folder in _folders(root, _NEW))
    old = (
        _ratio([*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]) for folder in _folders(root, "cpu")
    )
    return min(*new, *old, math.inf, math.inf)


def memory(root: Path = _ROOT) -> float:
    """Bytes that the groups leave. Their cached files can be given up, so they count as free."""
    new = (_left(folder, "memory.max", "memory.current", "inactive_file") for folder in _folders(root, _NEW))
    old = (
        _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        for folder in _folders(root, "memory")
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


def _left(folder: Path, limit: str, used: str, cached: str) -> float:
    """Bytes up to a group's limit."""
    try:
        most, now = (int(_words(folder / name)[0]) for name in (limit, used))
    except (ValueError, IndexError):
        return math.inf
    if most >= _UNLIMITED:
        return math.inf
    stat = _words(folder / "memory.stat")
    files = dict(zip(stat[::2], stat[1::2], strict=False))
    return max(0, most - now + int(files.get(cached, 0)))
