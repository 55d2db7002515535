"""How much memory there is to take."""

from __future__ import annotations

import math
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> float:
    """Bytes that can be had without swapping, within the limit of a container; infinity where the system does not say."""
    return min(_of_system(meminfo), _of_group(cgroup))


def _of_system(meminfo: Path) -> float:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return math.inf
    kib = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return next(kib, math.inf) * 1024


def _of_group(cgroup: Path) -> float:
    """What is left of the limit of this process's control group. Its cached files can be given up, so they count as free."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return math.inf
    return math.inf if limit == "max" else max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
