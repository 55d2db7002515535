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
    *("packed.cu", "rows.cu", "attention.cu", "delta.cu", "matvec.cu", "heads.cu", "matmul.cu", "matmul_ints.cu"),
    *("attend_many.cu", "experts.cu", "mailbox.cu", "shortlist.cu"),
)

U64 = ctypes.c_uint64
PORTABLE, MAPPED = 1, 2  # flags of cuMemHostRegister
EARLY = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
EARLY_CARD, EARLY_DRIVER = (9, 0), 12030  # compute capability and version of CUDA that have it in graphs


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute of cuda.h, for a value that is an int."""

    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_int), ("rest", ctypes.c_int * 15))


class _Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        *((name, ctypes.c_uint) for name in ("x", "y", "z", "threads_x", "threads_y", "threads_z", "shared")),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )


class Module:
    """Kernels by name. `kinds`: the tensor types that they must unpack; `made`: lines of code that make kernels for the model's
    heads. Fewer compile faster."""

    def __init__(self, kinds: Iterable[str], device: torch.device, folder: Path | None, made: Iterable[str] = ()) -> None:
        torch.zeros(1, device=device)  # makes torch's context, which the module is loaded into
        self._driver = _driver()
        self.device = device
        code = machine_code(source(kinds, made), torch.cuda.get_device_capability(device), folder)
        self._module = ctypes.c_void_p()
        with torch.cuda.device(device):
            self._check(self._driver.cuModuleLoadData(ctypes.byref(self._module), code), "loading the kernels")
        self._functions: dict[str, ctypes.c_void_p] = {}
        self.early = False
        """Whether a kernel's blocks may start while the one before still runs, see `after_previous` of common.cuh; only where
        `starts_early`."""
        self.seen: Callable[[str, tuple[Any, ...]], None] | None = None  # who wants to know of launches: names and arguments

    def launch(self, name: str, grid: tuple[int, ...], threads: int, *arguments: Any) -> None:
        """Run a kernel. Tensors go as their addresses, int as int32, float as float32, None as null, ctypes as they are."""
        if self.seen:
            self.seen(name, arguments)
        values = [_argument(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream(self.device).cuda_stream)
        attribute = _Attribute(EARLY, 0, 1)
        config = _Config(*(*grid, 1, 1)[:3], threads, 1, 1, 0, stream, ctypes.pointer(attribute), int(self.early))
        code = self._driver.cuLaunchKernelEx(ctypes.byref(config), self._function(name), pointers, None)
        self._check(code, f"launching {name}")

    @property
    def starts_early(self) -> bool:
        """Whether card and driver can start kernels before the one before has ended."""
        version = ctypes.c_int()
        self._check(self._driver.cuDriverGetVersion(ctypes.byref(version)), "the driver's version")
        return torch.cuda.get_device_capability(self.device) >= EARLY_CARD and version.value >= EARLY_DRIVER

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


def source(kinds: Iterable[str], made: Iterable[str] = ()) -> str:
    """The CUDA C++ of all kernels, with the given types' blocks and those that some lines make."""
    types = [BY_NAME[kind] for kind in sorted(kinds)]
    parts = [(_SOURCE / "common.cuh").read_text(), *map(_unpacker, types), _dispatch(types)]
    return "\n".join([*parts, *((_SOURCE / name).read_text() for name in FILES), *sorted(set(made)), ""])


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
    sizes = f"static const int STEP = {kind.cuda_step}, SCALES = {kind.cuda_scales};"
    body = f"__device__ static __forceinline__ void ints(const u8* b, int p, Ints& o) {{{kind.cuda_ints}}}"
    return f"\n{sizes} {constants}\n{body}"


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
