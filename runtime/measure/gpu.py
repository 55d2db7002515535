"""A card and the way to it: its memory, and PCIe both ways, alone and while the CPU reads its own memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from runtime.measure.memory import Bytes, read_speed
from runtime.measure.stage import Stage

COPY = 256 << 20  # bytes of one copy
COPIES = 8
PINNED = 2 << 30  # bytes that a machine should be able to pin


def measure(stage: Stage, memory: Bytes) -> dict[str, Any]:
    """Of the first card: names, bytes and bytes a second."""
    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    host, card = torch.empty(COPY, dtype=torch.uint8, pin_memory=True), torch.empty(COPY, dtype=torch.uint8, device="cuda")
    to_card, from_card = (lambda: card.copy_(host, non_blocking=True)), (lambda: host.copy_(card, non_blocking=True))
    alone = _speed(to_card)
    beside, reading = _beside(to_card, lambda: read_speed(stage, memory))
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory": total,
        "memory_free": free,
        "memory_read": memory_speed(),
        "to_card": alone,
        "from_card": _speed(from_card),
        "to_card_beside_reads": beside,
        "read_beside_copies": reading,
        "pinned": _pinned(),
    }


def _speed(copy: Callable[[], object]) -> float:
    """Bytes a second of the fastest of several copies."""
    copy()
    torch.cuda.synchronize()
    times = []
    for _ in range(COPIES):
        begin = time.perf_counter()
        copy()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return COPY / min(times)


def _beside(copy: Callable[[], object], read: Callable[[], float]) -> tuple[float, float]:
    """Bytes a second of copies and of reads that go on at the same time."""
    stop, copied = threading.Event(), [0]

    def copies() -> None:
        while not stop.is_set():
            copy()
            torch.cuda.synchronize()
            copied[0] += COPY

    thread = threading.Thread(target=copies)
    begin = time.perf_counter()
    thread.start()
    reading = read()
    stop.set()
    thread.join()
    return copied[0] / (time.perf_counter() - begin), reading


def memory_speed() -> float:
    """Bytes a second that the card moves in its own memory, reads and writes together."""
    one, other = (torch.empty(COPY, dtype=torch.uint8, device="cuda") for _ in range(2))
    return 2 * _speed(lambda: other.copy_(one))


def _pinned() -> int:
    """Bytes, up to PINNED, that could be pinned at once."""
    size = PINNED
    while size >= 64 << 20:
        try:
            torch.empty(size, dtype=torch.uint8, pin_memory=True)
            return size
        except RuntimeError:  # a limit of the system, of a container or of WSL
            size //= 2
    return 0
