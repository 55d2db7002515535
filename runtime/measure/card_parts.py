"""What a card does in a token: its kernels in their order, with their times, by torch's profiler."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from runtime.execute.hybrid import HybridExecutor
from runtime.measure.parts import Kernel
from runtime.measure.subject import Token

STEPS = 8  # tokens that are profiled


def kernels(executor: HybridExecutor, token: Token) -> list[Kernel]:
    """Those of one token; the seconds are means over STEPS."""
    launches = executor.launches()
    executor.forward(token())
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(STEPS):
            executor.forward(token())
    events: list[Any] = sorted((event for event in profiled.events() if event.device_time > 0), key=_start)
    return named([(event.name.split("(")[0].strip(), event.device_time / 1e6) for event in events], launches, STEPS)


def _start(event: Any) -> float:
    return float(event.time_range.start)


def named(events: Sequence[tuple[str, float]], launches: Sequence[tuple[str, str]], steps: int) -> list[Kernel]:
    """Each (name, seconds) with the tensor of its launch, the same at every step; seconds of one step.

    Kernels of one name come in the order of their launches. Where the profiler has lost some, its tensors are unknown.
    """
    tensors: defaultdict[str, list[str]] = defaultdict(list)
    for name, tensor in launches:
        tensors[name].append(tensor)
    found = Counter(name for name, _ in events)
    seen: Counter[str] = Counter()
    result = []
    for name, seconds in events:
        whole = found[name] == steps * len(tensors[name]) > 0
        tensor = tensors[name][seen[name] % len(tensors[name])] if whole else ""
        seen[name] += 1
        result.append(Kernel(name, tensor, seconds / steps))
    return result
