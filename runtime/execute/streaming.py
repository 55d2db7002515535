"""Streamed prefill: the experts of one layer after the other pass through staging buffers on the card."""

from __future__ import annotations

import math

import numpy as np
import torch

from runtime.cuda.module import Module
from runtime.execute.experts import Residence, Tables


class Streamer:
    """Copies on a stream of its own, ahead of the layer that computes. One `start`, then the layers in order, then `stop`."""

    def __init__(self, residences: list[Residence], module: Module, slots: int) -> None:
        """`slots`: layers that are on their way or in use at a time; with one alone, copies and products take turns."""
        self._residences, self._module = residences, module
        self._index = {residence.layer.gate.name: i for i, residence in enumerate(residences)}
        size = max(_missing_bytes(residence) for residence in residences)
        self._slots = [torch.empty(size, dtype=torch.uint8, device=module.device) for _ in range(min(slots, len(residences)))]
        self._tables = Tables([residence.layer for residence in residences], module.device)
        self._copies = torch.cuda.Stream(module.device)
        self._arrived = [torch.cuda.Event() for _ in residences]
        self._free = [torch.cuda.Event() for _ in self._slots]
        self._main: torch.cuda.Stream | None = None

    def renewed(self) -> Streamer:
        """One for the experts that are missing now; this one is of no use any more."""
        slots = len(self._slots)
        self._slots.clear()
        return Streamer(self._residences, self._module, slots)

    def start(self, main: torch.cuda.Stream) -> None:
        """Begin a pass whose kernels run on `main`; experts stay where they live during it."""
        self._main = main
        for i, residence in enumerate(self._residences):
            self._address(i, residence)
        self._tables.upload()
        self._copies.wait_stream(main)
        for i in range(len(self._slots)):
            self._copy(i)

    def stop(self) -> None:
        """The pass is over: experts are looked for where they live again."""
        self._main = None

    def seconds(self) -> float:
        """How long the copy of one layer takes: the better of two tries."""
        best = math.inf
        for _ in range(2):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(self._copies)
            self._copy(0)
            end.record(self._copies)
            end.synchronize()
            best = min(best, begin.elapsed_time(end) / 1e3)
        return best

    def table_of(self, residence: Residence) -> torch.Tensor | None:
        """Addresses of all experts of a layer, once the copies have arrived; None outside of a pass."""
        i = self._index.get(residence.layer.gate.name)
        if self._main is None or i is None:
            return None
        self._main.wait_event(self._arrived[i])
        return self._tables.of(i)

    def after(self, residence: Residence) -> None:
        """A layer's kernels are launched: its slot takes the layer after the next."""
        i = self._index.get(residence.layer.gate.name)
        if self._main is None or i is None:
            return
        slot = i % len(self._slots)
        self._free[slot].record(self._main)
        if i + len(self._slots) < len(self._residences):
            self._copies.wait_event(self._free[slot])
            self._copy(i + len(self._slots))

    def _copy(self, i: int) -> None:
        """Each run of missing experts, one behind the other."""
        residence, at = self._residences[i], self._slots[i % len(self._slots)].data_ptr()
        runs, layer = residence.missing, residence.layer
        with torch.cuda.stream(self._copies):
            for tensor, size in zip(layer.tensors, layer.sizes, strict=True):
                target = at
                for first, last in runs:
                    self._module.copy(target, tensor.address + first * size, (last - first) * size)
                    target += (last - first) * size
                at += _aligned(_missing(residence) * size)
            self._arrived[i].record(self._copies)

    def _address(self, i: int, residence: Residence) -> None:
        layer, at = residence.layer, self._slots[i % len(self._slots)].data_ptr()
        table = self._tables.host[i, :, : layer.experts]
        table[:] = residence.places
        missing = np.flatnonzero(table[0] == 0)
        for kind, size in enumerate(layer.sizes):
            table[kind, missing] = at + size * np.arange(len(missing))
            at += _aligned(_missing(residence) * size)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // 256) * 256


def _missing(residence: Residence) -> int:
    return residence.layer.experts - residence.slots


def _missing_bytes(residence: Residence) -> int:
    return sum(_aligned(size * _missing(residence)) for size in residence.layer.sizes)
