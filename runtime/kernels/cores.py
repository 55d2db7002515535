"""How many threads pay: physical cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def physical() -> int:
    """Cores of the affinity mask, hyper-threads counted once, no more than a container's CPU quota."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota(len(cores))))


def _siblings(cpu: int) -> str:
    try:
        return Path(_TOPOLOGY.format(cpu)).read_text().strip()
    except OSError:
        return str(cpu)


def _quota(otherwise: int) -> int:
    try:
        quota, period = _QUOTA.read_text().split()
        return otherwise if quota == "max" else max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        return otherwise
