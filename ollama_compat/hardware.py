"""What the machine has that this installation cannot use."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0"), Path("/usr/lib/wsl/lib/libcuda.so.1"))


def notice(driver: tuple[Path, ...] = _DRIVER) -> str:
    """The line to log about an NVIDIA GPU, or "" where there is none. Looks for torch without importing it."""
    if not any(path.exists() for path in driver):
        return ""
    if importlib.util.find_spec("torch") is None:
        return (
            "an NVIDIA GPU is here, but torch is not, so models run on the CPU; install it with "
            f"`{sys.executable} -m pip install 'moellama[cuda]'` (in a checkout: `make install CUDA=1`)"
        )
    return "an NVIDIA GPU is here, but this version computes on the CPU only"
