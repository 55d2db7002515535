"""llama.cpp's products of rows, called in its own library (libggml-cpu.so) by ctypes: the peer of our leaves."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from runtime.kernels.jit import njit
from runtime.kernels.memory import call_intrinsic
from runtime.quants import BY_NAME

_call = call_intrinsic(8)  # void vec_dot(n, out, out_stride, weights, stride, activations, stride, count)

_GEMV = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
INTERLEAVED = 8  # rows that its repacked layouts put together


class _Traits(ctypes.Structure):
    _fields_ = [("from_float", ctypes.c_void_p), ("vec_dot", ctypes.c_void_p), ("vec_dot_type", ctypes.c_int),
                ("rows", ctypes.c_int64)]  # fmt: skip


class Ggml:
    """One build of the library, in the folder `path`."""

    def __init__(self, path: Path) -> None:
        ctypes.CDLL(str(path / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(path / "libggml-cpu.so"))
        self._library.ggml_get_type_traits_cpu.restype = ctypes.POINTER(_Traits)
        self._library.ggml_cpu_init()

    def products(self, name: str, weights: np.ndarray, stride: int, rows: int, width: int) -> list[Callable[[], None]]:
        """Calls that multiply `rows` rows of `width` values by one vector: row by row, and repacked where it can.

        What the weights say does not matter to the time that they take.
        """
        traits = self._library.ggml_get_type_traits_cpu(BY_NAME[name].type_id).contents
        if not traits.vec_dot:
            return []
        activations, out = np.zeros(width * 8, np.uint8), np.zeros(rows, np.float32)
        place, keep = weights.ctypes.data, (activations, out)
        loop = functools.partial(_rows, traits.vec_dot, width, out.ctypes.data, place, stride, activations.ctypes.data, rows)
        calls = [functools.partial(_held, loop, keep)]
        gemv = self._gemv(name)
        if gemv is not None:
            arguments = (width, out.ctypes.data, rows, place, activations.ctypes.data, 1, rows)
            calls.append(functools.partial(_held, functools.partial(gemv, *arguments), keep))
        return calls

    def _gemv(self, name: str) -> Callable[..., None] | None:
        side = "q8_K" if BY_NAME[name].block_size == 256 else "q8_0"
        kind = name.lower().replace("_k", "_K")
        function = getattr(self._library, f"ggml_gemv_{kind}_{INTERLEAVED}x8_{side}", None)
        if function is not None:
            function.argtypes, function.restype = _GEMV, None
        return function


def _held(call: Callable[[], None], keep: object) -> None:
    call()


@njit(nogil=True)
def _rows(function: int, width: int, out: int, weights: int, stride: int, activations: int, rows: int) -> None:
    """Row after row in machine code: a call from Python takes longer than a row."""
    for row in range(rows):
        _call(function, (width, out + 4 * row, 0, weights + row * stride, 0, activations, 0, 1))
