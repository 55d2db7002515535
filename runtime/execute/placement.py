"""Where a model can run on this machine, and what of it lies on the card: a pure plan, in bytes and in words."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import sys
from pathlib import Path

log = logging.getLogger(__name__)

WORTH_WHILE = 128 << 20  # bytes of a file that are worth the seconds until a card is ready
SLACK = 384 << 20  # bytes of the card left to the allocator's gaps and to CUDA itself
MANY = 1 << 30
STAGES = 2  # layers of experts in staging buffers, where there is room for so many
_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0"), Path("/usr/lib/wsl/lib/libcuda.so.1"))


def wants_gpu(num_gpu: int, embedding: bool, nbytes: int, driver: tuple[Path, ...] = _DRIVER) -> bool:
    """Whether to run on a card: an NVIDIA driver is here, torch is installed, and neither the user (`num_gpu` 0) nor the model
    says otherwise: those that make vectors run on the CPU, and so do files of few bytes, which answer before torch is imported,
    unless `num_gpu` asks for the card. A machine with a driver and no torch gets a line in the log that names the remedy.
    """
    small = nbytes < WORTH_WHILE and num_gpu < 0
    if num_gpu == 0 or embedding or small or not any(path.exists() for path in driver):
        return False
    if importlib.util.find_spec("torch") is not None:
        return True
    remedy = f"{sys.executable} -m pip install 'moellama[cuda]'"
    log.warning("an NVIDIA GPU is here, but torch is not, so the model runs on the CPU; `%s` adds it (in a checkout: "
                "`make install CUDA=1`)", remedy)  # fmt: skip
    return False


class NoRoom(Exception):
    """Not even the smallest plan fits; the message says what is missing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Needs:
    """What a model asks of a card, in bytes."""

    layers: int
    dense: int  # attention, norms, router, dense feed-forward, embedding and output
    experts: tuple[tuple[int, int], ...]  # of each layer that has some: how many, bytes of one
    block: int  # of one block of the cache on all layers
    blocks: int  # of the cache
    step: int  # activations of the largest step


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What goes where. `resident`: how many experts of each layer there lie in VRAM; `stages`: layers of experts in staging
    buffers; `first`: the first layer on the card."""

    blocks: int
    resident: tuple[int, ...]
    vram: int
    words: str
    stages: int
    spare: int = 0  # bytes that nothing is planned for
    first: int = 0

    def after(self, nbytes: int) -> Plan:
        """With words for the layers before `first`, which take so many bytes on the CPU."""
        if not self.first:
            return self
        layers = "the first layer" if self.first == 1 else f"the first {self.first} layers"
        return dataclasses.replace(self, words=f"{layers} on the CPU ({_size(nbytes)}), then {self.words}")


def plan(needs: Needs, vram: int, gpu: int = 0, *, most: int | None = None, num_cpu_moe: int = 0) -> Plan:
    """The best use of `vram` bytes on card `gpu`: the dense part and the cache first, then as many experts as fit.

    `most`: experts of a layer that may lie there, None for all; `num_cpu_moe`: layers, from the first, whose experts stay in
    RAM. Raises NoRoom where the dense part does not fit.
    """
    fixed = needs.dense + needs.block * needs.blocks + needs.step + SLACK
    room = vram - fixed
    if room < 0:
        raise NoRoom(f"it has {_size(vram)} free, and {_size(-room)} more are needed for all but the experts")
    most = MANY if most is None else most
    allowed = [0 if i < num_cpu_moe else min(most, count) for i, (count, _) in enumerate(needs.experts)]
    total = sum(count * size for count, size in needs.experts)
    wanted = sum(count * size for count, (_, size) in zip(allowed, needs.experts, strict=True))
    stages = 0
    if wanted < total or total > room:
        stage = max(count * size for count, size in needs.experts)
        stages = min(STAGES, len(needs.experts), room // stage)
        if not stages:
            raise NoRoom(f"it has {_size(vram)} free, and {_size(stage - room)} more are needed to stream experts")
        room -= stages * stage
    share = min(1.0, room / max(wanted, 1))
    resident = tuple(int(count * share) for count in allowed)
    held = sum(n * size for n, (_, size) in zip(resident, needs.experts, strict=True))
    used = needs.dense + needs.block * needs.blocks + held
    return Plan(needs.blocks, resident, used, _words(needs, resident, held, total, gpu), stages, room - held)


def _words(needs: Needs, resident: tuple[int, ...], held: int, total: int, gpu: int) -> str:
    every = ("the output", "the last layer")[needs.layers] if needs.layers < 2 else f"all {needs.layers} layers"
    dense = f"{needs.layers} layers' attention on GPU {gpu} ({_size(needs.dense)})"
    if not needs.experts:
        return f"{every} on GPU {gpu} ({_size(needs.dense)})"
    if held == total:
        return f"{every} on GPU {gpu} ({_size(needs.dense + total)})"
    count = sum(n for n, _ in needs.experts)
    words = f"{dense}, {count} experts in RAM ({_size(total)})"
    return f"{words}, {sum(resident)} hottest also in VRAM ({_size(held)})" if held else words


def _size(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 1 << 30 else f"{nbytes / 2**20:.0f} MiB"
