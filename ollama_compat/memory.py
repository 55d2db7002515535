"""How much memory there is to take."""

from __future__ import annotations

import math
from pathlib import Path

from ollama_compat import cgroup


def available(root: Path = Path("/")) -> float:
    """Bytes that can be had without swapping, within the limit of a container; infinity where the system does not say.
    `root`: where proc and sys are."""
    return min(_of_system(root / "proc/meminfo"), cgroup.memory(root))


def _of_system(meminfo: Path) -> float:
    try:
        lines = meminfo.read_text("utf-8", "replace").splitlines()
    except OSError:
        return math.inf
    kib = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return next(kib, math.inf) * 1024
