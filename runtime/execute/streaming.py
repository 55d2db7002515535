"""Streamed prefill: the experts of one layer after the other pass through staging buffers on the card."""

from __future__ import annotations

import math

import torch

from runtime.execute.cuda_ops import memory
from runtime.execute.experts import KINDS, Residence, addresses

SLOTS = 2  # layers on their way or in use


class Streamer:
    """Copies on a stream of its own, ahead of the layer that computes. One `start`, then the layers in order, then `stop`."""

    def __init__(self, residences: list[Residence], device: torch.device) -> None:
        self._residences = residences
        self._index = {residence.layer.gate.name: i for i, residence in enumerate(residences)}
        size = max(_missing_bytes(residence) for residence in residences)
        self._slots = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(min(SLOTS, len(residences)))]
        self._tables = [self._table(residence, self._slots[i % len(self._slots)]) for i, residence in enumerate(residences)]
        self._copies = torch.cuda.Stream(device)
        self._arrived = [torch.cuda.Event() for _ in residences]
        self._free = [torch.cuda.Event() for _ in self._slots]
        self._main: torch.cuda.Stream | None = None

    def start(self, main: torch.cuda.Stream) -> None:
        """Begin a pass whose kernels run on `main`."""
        self._main = main
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
        return self._tables[i]

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
        residence, slot, at = self._residences[i], self._slots[i % len(self._slots)], 0
        with torch.cuda.stream(self._copies):
            for tensor in residence.layer.tensors:
                each = tensor.nbytes // residence.layer.experts
                start = residence.present * each
                size = tensor.nbytes - start
                slot[at : at + size].copy_(memory(tensor.address + start, size), non_blocking=True)
                at += _aligned(size)
            self._arrived[i].record(self._copies)

    def _table(self, residence: Residence, slot: torch.Tensor) -> torch.Tensor:
        layer, table, starts, at = residence.layer, residence.addresses.clone(), [], slot.data_ptr()
        missing = layer.experts - residence.present
        for tensor in layer.tensors:
            starts.append(at)
            at += _aligned(tensor.nbytes // layer.experts * missing)
        table[:, residence.present :] = addresses(layer, starts, missing)
        assert table.shape[0] == KINDS
        return table


def _aligned(nbytes: int) -> int:
    return -(-nbytes // 256) * 256


def _missing_bytes(residence: Residence) -> int:
    layer = residence.layer
    missing = layer.experts - residence.present
    return sum(_aligned(tensor.nbytes // layer.experts * missing) for tensor in layer.tensors)
