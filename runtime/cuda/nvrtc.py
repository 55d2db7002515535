"""CUDA C++ to machine code with NVRTC, which comes with torch: no compiler, no toolkit, no headers are needed."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12")


class CudaError(Exception):
    """The GPU's kernels cannot be made or run; the message names what failed."""


class Nvrtc:
    """The compiler library; CudaError where there is none."""

    def __init__(self) -> None:
        self._library = _open()
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
        self.version = f"{major.value}.{minor.value}"

    def compile(self, source: str, capability: tuple[int, int]) -> bytes:
        """Machine code (a cubin) for cards of one compute capability. Raises CudaError with the compiler's log."""
        program = ctypes.c_void_p()
        created = self._library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"moellama.cu", 0, None, None)
        self._check(created, "nvrtcCreateProgram")
        try:
            options = [f"--gpu-architecture=sm_{capability[0]}{capability[1]}".encode(), b"--std=c++17", b"-default-device"]
            given = (ctypes.c_char_p * len(options))(*options)
            if self._library.nvrtcCompileProgram(program, len(options), given) != 0:
                raise CudaError(f"compiling for {capability} failed: {self._read(program, 'ProgramLog').decode()}")
            return self._read(program, "CUBIN")
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), what)
        content = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, content), what)
        return content.raw

    def _check(self, code: int, what: str) -> None:
        if code != 0:
            raise CudaError(f"NVRTC: {what} failed with {code}")


def machine_code(source: str, capability: tuple[int, int], folder: Path | None) -> bytes:
    """`source` compiled, from `folder` where it has been compiled before."""
    compiler = Nvrtc()
    digest = hashlib.sha256(f"{compiler.version} {capability}\n{source}".encode()).hexdigest()[:24]
    path = folder / f"{digest}.cubin" if folder else None
    if path is not None and path.exists():
        return path.read_bytes()
    code = compiler.compile(source, capability)
    if path is not None:
        _keep(path, code)
    return code


def _keep(path: Path, code: bytes) -> None:
    aside = path.with_suffix(f".{os.getpid()}")
    try:
        aside.write_bytes(code)
        aside.replace(path)
    except OSError as error:
        log.warning("compiled kernels are not kept: %s", error)


def _open() -> ctypes.CDLL:
    for candidate in _candidates():
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    raise CudaError("no NVRTC library was found; `pip install nvidia-cuda-nvrtc` brings one")


def _candidates() -> Iterator[str]:
    """Beside torch first: that version fits the driver that torch was made for."""
    for package in ("nvidia", "torch"):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            for name in _NAMES:
                yield from map(str, sorted(Path(place).glob(f"**/{name}")))
    yield from _NAMES
