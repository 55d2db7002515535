"""llama.cpp's products, called in its own library (libggml-cpu.so) by ctypes: the peer of our leaves."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runtime.kernels.jit import njit
from runtime.kernels.memory import call7, call_intrinsic
from runtime.quants import BY_NAME

_call = call_intrinsic(8)  # void vec_dot(n, out, out_stride, weights, stride, activations, stride, count)

INTERLEAVED = 8  # rows that its repacked layouts put together
TILE = 4  # columns that its repacked products of several columns put together
CONTEXT = 16 << 20  # bytes of a context, less its weights
F32 = 0  # ggml.h GGML_TYPE_F32

Run = Callable[[int], None]
"""Does something so many times, in machine code: a call from Python takes as long as a third of a product in cache."""


class _Traits(ctypes.Structure):
    _fields_ = [("from_float", ctypes.c_void_p), ("vec_dot", ctypes.c_void_p), ("vec_dot_type", ctypes.c_int),
                ("rows", ctypes.c_int64)]  # fmt: skip


class _ContextParameters(ctypes.Structure):  # ggml.h ggml_init_params
    _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class _Plan(ctypes.Structure):  # ggml-cpu.h ggml_cplan
    _fields_ = [("work_size", ctypes.c_size_t), ("work", ctypes.c_void_p), ("threads", ctypes.c_int),
                ("threadpool", ctypes.c_void_p), ("abort", ctypes.c_void_p), ("abort_data", ctypes.c_void_p),
                ("use_ref", ctypes.c_bool)]  # fmt: skip


class Ggml:
    """One build of the library, in the folder `path`."""

    def __init__(self, path: Path) -> None:
        self._base = ctypes.CDLL(str(path / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(path / "libggml-cpu.so"))
        self._library.ggml_get_type_traits_cpu.restype = ctypes.POINTER(_Traits)
        self._library.ggml_cpu_init()
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        declared = {
            (self._base, "ggml_init"): (pointer, [_ContextParameters]),
            (self._base, "ggml_new_tensor_2d"): (pointer, [pointer, ctypes.c_int, size, size]),
            (self._base, "ggml_mul_mat"): (pointer, [pointer] * 3),
            (self._base, "ggml_get_data"): (pointer, [pointer]),
            (self._base, "ggml_new_graph"): (pointer, [pointer]),
            (self._base, "ggml_build_forward_expand"): (None, [pointer] * 2),
            (self._library, "ggml_graph_plan"): (_Plan, [pointer, ctypes.c_int, pointer]),
        }
        for (library, name), (result, arguments) in declared.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments

    def products(self, name: str, weights: np.ndarray, stride: int, rows: int, width: int, columns: int) -> list[Run]:
        """Calls that multiply `rows` rows of `width` values by so many vectors: row by row, repacked where it can, and as its
        graphs do, which includes rounding the vectors.

        What the weights say does not matter to the time that they take.
        """
        traits = self._library.ggml_get_type_traits_cpu(BY_NAME[name].type_id).contents
        if not traits.vec_dot:
            return []
        activations, out = (_aligned(columns * width * 8), _aligned(columns * rows * 4))
        place, inputs, outputs = weights.ctypes.data, activations.ctypes.data, out.ctypes.data
        loop = functools.partial(_rows, traits.vec_dot, width, outputs, place, stride, inputs, rows, columns)
        graph = self._graph(BY_NAME[name].type_id, weights[: rows * stride], rows, width, columns)
        calls: list[Run] = [loop, graph]
        arguments = (width, outputs, rows, place, inputs, columns, rows)
        repacked = self._repacked("gemv" if columns == 1 else "gemm", name)
        if repacked is not None and columns in (1, *range(TILE, columns + 1, TILE)) and rows % INTERLEAVED == 0:
            calls.append(repeated((repacked, *arguments)))
        return [functools.partial(_held, call, (activations, out)) for call in calls]

    def _repacked(self, form: str, name: str) -> int | None:
        """The address of its product of repacked rows."""
        side = "q8_K" if BY_NAME[name].block_size == 256 else "q8_0"
        kind = name.lower().replace("_k", "_K")
        function = getattr(self._library, f"ggml_{form}_{kind}_{INTERLEAVED}x8_{side}", None)
        return None if function is None else _address(function)

    def _graph(self, type_id: int, weights: np.ndarray, rows: int, width: int, columns: int) -> Run:
        """A graph of one product, on this thread."""
        base, size = self._base, CONTEXT + weights.nbytes + 4 * columns * (width + rows)
        context = base.ggml_init(_ContextParameters(size, None, False))
        left = base.ggml_new_tensor_2d(context, type_id, width, rows)
        right = base.ggml_new_tensor_2d(context, F32, width, columns)
        ctypes.memmove(base.ggml_get_data(left), weights.ctypes.data, weights.nbytes)
        ctypes.memset(base.ggml_get_data(right), 0, 4 * columns * width)
        graph = base.ggml_new_graph(context)
        base.ggml_build_forward_expand(graph, base.ggml_mul_mat(context, left, right))
        plan = self._library.ggml_graph_plan(graph, 1, None)
        work = _aligned(plan.work_size + 1)
        plan.work = work.ctypes.data
        call = repeated((_address(self._library.ggml_graph_compute), graph, ctypes.addressof(plan)))
        return functools.partial(_held, call, (work, plan))


def repeated(*calls: tuple[int, ...]) -> Run:
    """Calls, each of an address with up to seven arguments, one after the other."""
    return functools.partial(_repeat, np.array([(*call, *[0] * (8 - len(call))) for call in calls], np.int64))


@njit(nogil=True)
def _repeat(calls: np.ndarray, times: int) -> None:
    for _ in range(times):
        for number in range(len(calls)):
            c = calls[number]
            call7(c[0], (c[1], c[2], c[3], c[4], c[5], c[6], c[7]))


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _aligned(count: int) -> np.ndarray:
    """Zeros from a cache line on."""
    raw = np.zeros(count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count]


def _held(call: Run, keep: object, times: int) -> None:
    call(times)


@njit(nogil=True)
def _rows(
    function: int, width: int, out: int, weights: int, stride: int, activations: int, rows: int, columns: int, times: int
) -> None:
    """Row after row."""
    for _ in range(times):
        for row in range(rows):
            for column in range(columns):
                place = out + 4 * (rows * column + row)
                _call(function, (width, place, 0, weights + row * stride, 0, activations + 8 * width * column, 0, 1))
