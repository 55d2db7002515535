"""Arguments of the kernels in runtime/cuda/source, as they lie in memory."""

from __future__ import annotations

import ctypes

from runtime.execute.cuda_values import FORMATS


class Matrix(ctypes.Structure):
    """`Matrix` of runtime/cuda/source/matvec.cu."""

    _fields_ = (
        ("w", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("row_bytes", ctypes.c_uint64),
        ("rows", ctypes.c_int),
        ("type", ctypes.c_int),
    )


class Rows(ctypes.Structure):
    """`Rows` of runtime/cuda/source/packed.cu."""

    _fields_ = (("x", ctypes.c_void_p), ("packed", ctypes.c_void_p * len(FORMATS)), ("width", ctypes.c_int))


class Packing(ctypes.Structure):
    """`Packing` of runtime/cuda/source/packed.cu."""

    _fields_ = (("out", ctypes.c_void_p * len(FORMATS)),)


class Groups(ctypes.Structure):
    """`Groups` of runtime/cuda/source/matmul.cu."""

    _fields_ = (
        ("tiles", ctypes.c_void_p),
        ("n_tiles", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("share", ctypes.c_int),
    )


class HeadShape(ctypes.Structure):
    """`Heads` of runtime/cuda/source/attention.cu."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("q", "kv", "key", "value")),
        ("scale", ctypes.c_float),
        ("window", ctypes.c_int),
        ("value_eps", ctypes.c_float),
        ("softcap", ctypes.c_float),
    )


class DeltaShape(ctypes.Structure):
    """`DeltaShape` of runtime/cuda/source/delta.cu."""

    _fields_ = (*((name, ctypes.c_int) for name in ("key_heads", "heads", "grouped")), ("eps", ctypes.c_float))


class Router(ctypes.Structure):
    """`Routing` of runtime/cuda/source/experts.cu."""

    _fields_ = (
        ("bias", ctypes.c_void_p),
        ("factors", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("experts", "k", "normalize", "gating", "groups", "groups_used")),
        ("scale", ctypes.c_float),
    )


class Pages(ctypes.Structure):
    """`Pages` of runtime/cuda/source/attention.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("positions", "sequences", "tables")),
        *((name, ctypes.c_int) for name in ("width", "bits")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
    )
