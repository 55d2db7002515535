"""Where a model can run on this machine."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

log = logging.getLogger(__name__)

_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0"), Path("/usr/lib/wsl/lib/libcuda.so.1"))


def wants_gpu(num_gpu: int, embedding: bool, driver: tuple[Path, ...] = _DRIVER) -> bool:
    """Whether to run on a card: the user asks for it (`num_gpu` > 0), an NVIDIA driver is here and torch is installed.

    Not by itself yet (`num_gpu` -1): a small model decodes faster on the CPU kernels than by single launches on a card
    (docs/log.md). A machine with a driver and no torch gets a line in the log that names the remedy. Models that make
    vectors run on the CPU.
    """
    if num_gpu == 0 or embedding or not any(path.exists() for path in driver):
        return False
    if importlib.util.find_spec("torch") is not None:
        return num_gpu > 0
    remedy = f"{sys.executable} -m pip install 'moellama[cuda]'"
    log.warning("an NVIDIA GPU is here, but torch is not, so the model runs on the CPU; `%s` adds it (in a checkout: "
                "`make install CUDA=1`)", remedy)  # fmt: skip
    return False
