"""Arrays of cache blocks on a card that get longer without moving: captured graphs hold their addresses."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import torch

from runtime.cuda.nvrtc import CudaError
from runtime.cuda.virtual import Pages

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class _Array:
    """One array: its addresses, and how many bytes of them have memory."""

    address: int
    reserved: int
    block: int  # bytes
    view: torch.Tensor | None = None  # all of it, memory or not
    backed: int = 0


class BlockMemory:
    """`blocks` blocks of each array are there; up to `most` can be. Without `pages` an array is an ordinary tensor."""

    def __init__(self, device: torch.device, pages: Pages | None, blocks: int, most: int) -> None:
        self.blocks = blocks
        self.most = max(most, blocks) if pages else blocks
        self._device, self._pages = device, pages
        self._arrays: list[_Array] = []

    def array(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Blocks of that shape, zeros, (most, *shape); those beyond `blocks` must not be touched."""
        if self._pages is None:
            return torch.zeros((self.blocks, *shape), dtype=dtype, device=self._device)
        block = math.prod(shape) * dtype.itemsize
        size = self._whole(block * self.most)
        made = _Array(self._pages.reserve(size), size, block)
        self._arrays.append(made)
        self._back(made, self.blocks)
        made.view = self._view(made.address, (self.most, *shape), dtype)
        made.view[: self.blocks].zero_()
        return made.view

    def needed(self, blocks: int) -> int:
        """Bytes that so many blocks take beyond what the arrays have."""
        return sum(max(0, self._whole(array.block * blocks) - array.backed) for array in self._arrays)

    def grow(self, blocks: int) -> None:
        """Have so many blocks of each array. Raises CudaError where the card has no memory; then nothing has changed but that
        some arrays have more of it."""
        assert self.blocks <= blocks <= self.most
        for array in self._arrays:
            self._back(array, blocks)
        for array in self._arrays:
            assert array.view is not None
            array.view[self.blocks : blocks].zero_()
        self.blocks = blocks

    def close(self) -> None:
        """Give the memory back; nothing may run on it any more."""
        for array in self._arrays:
            assert self._pages is not None
            array.view = None
            try:
                self._pages.release(array.address, array.backed, array.reserved)
            except CudaError as error:
                _LOG.warning("memory of the cache is not given back: %s", error)
        self._arrays.clear()

    def _back(self, array: _Array, blocks: int) -> None:
        assert self._pages is not None
        wanted = self._whole(array.block * blocks)
        if wanted > array.backed:
            self._pages.back(array.address + array.backed, wanted - array.backed)
            array.backed = wanted

    def _whole(self, nbytes: int) -> int:
        """Whole pages."""
        assert self._pages is not None
        return -(-nbytes // self._pages.granularity) * self._pages.granularity

    def _view(self, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """The memory there as a tensor."""
        view: torch.Tensor = torch.as_tensor(_Exposed(address, shape, dtype), device=self._device)
        return view


class _Exposed:
    """Memory of a card as torch takes it over from other libraries."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        kind = {torch.float16: "<f2", torch.float32: "<f4", torch.int8: "|i1", torch.uint8: "|u1"}[dtype]
        self.__cuda_array_interface__: dict[str, Any] = {"shape": shape, "typestr": kind, "data": (address, False), "version": 3}
