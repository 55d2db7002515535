"""Memory of a card by addresses that are taken first and get their pages later, so that an array can grow where it is."""

from __future__ import annotations

import ctypes
from typing import Protocol

from runtime.cuda.nvrtc import CudaError

_PINNED, _DEVICE, _READ_WRITE = 1, 1, 3  # kinds of memory, of a place and of access, in cuda.h's numbers


class _Location(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("id", ctypes.c_int))


class _Properties(ctypes.Structure):
    """CUmemAllocationProp of cuda.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("handles", ctypes.c_int),
        ("location", _Location),
        ("windows", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
    )


class _Access(ctypes.Structure):
    """CUmemAccessDesc of cuda.h."""

    _fields_ = (("location", _Location), ("flags", ctypes.c_int))


class Pages(Protocol):
    """Addresses and the memory behind them; every size is a multiple of `granularity`. Methods raise CudaError."""

    granularity: int

    def reserve(self, nbytes: int) -> int:
        """Addresses without memory."""

    def back(self, address: int, nbytes: int) -> None:
        """Put memory behind a part of them."""

    def release(self, address: int, backed: int, nbytes: int) -> None:
        """Give the first `backed` bytes of memory back, and all `nbytes` addresses."""


class VirtualMemory:
    """Implements Pages by the driver's functions. CudaError where the driver has none."""

    def __init__(self, driver: ctypes.CDLL, card: int) -> None:
        self._driver = driver
        self._properties = _Properties(_PINNED, 0, _Location(_DEVICE, card), None, 0)
        self._access = _Access(_Location(_DEVICE, card), _READ_WRITE)
        size = ctypes.c_size_t()
        self._call("cuMemGetAllocationGranularity", ctypes.byref(size), ctypes.byref(self._properties), 0)
        self.granularity = size.value

    def reserve(self, nbytes: int) -> int:
        address = ctypes.c_uint64()
        none = ctypes.c_uint64(0)
        self._call("cuMemAddressReserve", ctypes.byref(address), ctypes.c_size_t(nbytes), ctypes.c_size_t(0), none, none)
        return address.value

    def back(self, address: int, nbytes: int) -> None:
        handle, at, size = ctypes.c_uint64(), ctypes.c_uint64(address), ctypes.c_size_t(nbytes)
        none = ctypes.c_uint64(0)
        self._call("cuMemCreate", ctypes.byref(handle), size, ctypes.byref(self._properties), none)
        try:
            self._call("cuMemMap", at, size, ctypes.c_size_t(0), handle, none)
        finally:
            self._call("cuMemRelease", handle)  # the mapping keeps it
        self._call("cuMemSetAccess", at, size, ctypes.byref(self._access), ctypes.c_size_t(1))

    def release(self, address: int, backed: int, nbytes: int) -> None:
        if backed:
            self._call("cuMemUnmap", ctypes.c_uint64(address), ctypes.c_size_t(backed))
        self._call("cuMemAddressFree", ctypes.c_uint64(address), ctypes.c_size_t(nbytes))

    def _call(self, name: str, *arguments: object) -> None:
        function = getattr(self._driver, name, None)
        code = function(*arguments) if function is not None else "not in this driver"
        if code:
            raise CudaError(f"{name}: {code}")
