"""The compiled kernels of one model on one card, and how to launch them on torch's current stream."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from runtime.cuda.nvrtc import CudaError, machine_code
from runtime.cuda.virtual import VirtualMemory
from runtime.quants import BY_NAME
from runtime.quants.base import QuantType

_LOG = logging.getLogger(__name__)

_SOURCE = Path(__file__).parent / "source"
FILES = (
    *("packed.cu", "rows.cu", "attention.cu", "delta.cu", "matvec.cu", "heads.cu", "matmul.cu", "experts.cu", "mailbox.cu"),
    "shortlist.cu",
)

U64 = ctypes.c_uint64
PORTABLE, MAPPED = 1, 2  # flags of cuMemHostRegister


class Module:
    """Kernels by name. `kinds`: the tensor types that they must unpack; fewer types compile faster."""

    def __init__(self, kinds: Iterable[str], device: torch.device, folder: Path | None) -> None:
        torch.zeros(1, device=device)  # makes torch's context, which the module is loaded into
        self._driver = _driver()
        self.device = device
        code = machine_code(source(kinds), torch.cuda.get_device_capability(device), folder)
        self._module = ctypes.c_void_p()
        with torch.cuda.device(device):
            self._check(self._driver.cuModuleLoadData(ctypes.byref(self._module), code), "loading the kernels")
        self._functions: dict[str, ctypes.c_void_p] = {}
        self.seen: Callable[[str, tuple[Any, ...]], None] | None = None  # who wants to know of launches: names and arguments

    def launch(self, name: str, grid: tuple[int, ...], threads: int, *arguments: Any) -> None:
        """Run a kernel. Tensors go as their addresses, int as int32, float as float32, None as null, ctypes as they are."""
        if self.seen:
            self.seen(name, arguments)
        values = [_argument(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        x, y, z = (*grid, 1, 1)[:3]
        stream = ctypes.c_void_p(torch.cuda.current_stream(self.device).cuda_stream)
        code = self._driver.cuLaunchKernel(self._function(name), x, y, z, threads, 1, 1, 0, stream, pointers, None)
        self._check(code, f"launching {name}")

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy from the host's memory to the card, in the order of torch's current stream; returns at once where it is pinned."""
        stream = ctypes.c_void_p(torch.cuda.current_stream(self.device).cuda_stream)
        code = self._driver.cuMemcpyHtoDAsync_v2(U64(target), ctypes.c_void_p(source), ctypes.c_size_t(nbytes), stream)
        self._check(code, "copying to the card")

    def pin(self, address: int, nbytes: int) -> bool:
        """Let the card read a piece of the host's memory by itself; False where the system does not allow it."""
        code: int = self._driver.cuMemHostRegister_v2(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), PORTABLE | MAPPED)
        return code == 0

    def unpin(self, address: int) -> None:
        """Undo `pin`."""
        self._check(self._driver.cuMemHostUnregister(ctypes.c_void_p(address)), "unpinning memory")

    def pages(self) -> VirtualMemory | None:
        """Memory that can grow where it is; None where the driver does not offer it."""
        try:
            return VirtualMemory(self._driver, self.device.index or 0)
        except CudaError as error:
            _LOG.info("memory on the card cannot grow where it is: %s", error)
            return None

    def _function(self, name: str) -> ctypes.c_void_p:
        if name not in self._functions:
            function = ctypes.c_void_p()
            self._check(self._driver.cuModuleGetFunction(ctypes.byref(function), self._module, name.encode()), name)
            self._functions[name] = function
        return self._functions[name]

    def _check(self, code: int, what: str) -> None:
        if code != 0:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            raise CudaError(f"{what}: {(text.value or b'unknown error').decode()}")


def source(kinds: Iterable[str]) -> str:
    """The CUDA C++ of all kernels, with the given types' blocks."""
    types = [BY_NAME[kind] for kind in sorted(kinds)]
    parts = [(_SOURCE / "common.cuh").read_text(), *map(_unpacker, types), _dispatch(types)]
    return "\n".join([*parts, *((_SOURCE / name).read_text() for name in FILES)])


def _unpacker(kind: QuantType) -> str:
    """A struct of that name: values [8 p, 8 p + 8) of the block at b become w. The types of one value a block go by eight."""
    values = max(8, kind.block_size)
    size = kind.block_bytes * values // kind.block_size
    constants = f"static const int BLOCK = {values}, BYTES = {size}; static const bool INTS = {int(bool(kind.cuda_ints))};"
    head = f"struct {kind.name} {{ {constants}"
    body = f"{head}\n__device__ static __forceinline__ void unpack8(const u8* b, int p, float* w) {{{kind.cuda}}}"
    return f"{body}{_integers(kind) if kind.cuda_ints else ''} }};"


def _integers(kind: QuantType) -> str:
    """The part of the struct that is about products in int8."""
    constants = f"static const Form FORM = {kind.cuda_form}; static const Format FORMAT = {kind.activation.upper()}_ROWS;"
    body = f"__device__ static __forceinline__ void ints(const u8* b, int p, Ints& o) {{{kind.cuda_ints}}}"
    return f"\nstatic const int STEP = {kind.cuda_step}; {constants}\n{body}"


def _dispatch(types: list[QuantType]) -> str:
    cases = " ".join(f"case {kind.type_id}: f({kind.name}()); break;" for kind in types)
    return f"template <class F> __device__ __forceinline__ void with_type(int type, F f) {{ switch (type) {{ {cases} }} }}"


def _argument(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, int):
        return ctypes.c_int(value)
    return ctypes.c_float(value) if isinstance(value, float) else value


def _driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise CudaError(f"no CUDA driver: {error}") from error
