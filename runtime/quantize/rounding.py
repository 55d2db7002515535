"""Numbers as llama.cpp's quantisers round them: to integers, to half precision, and the decorators of the kernels here.

Every operation is one of IEEE single precision, in the order of ggml-quants.c, so that the bytes come out the same. An
integer that meets a float has to be made one first: numba would go on in double precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.kernels.jit import njit
from runtime.kernels.memory import bits_f32, f32_bits

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
TINY = np.float32(1e-15)  # a group whose largest value is below this is all zeros
LARGEST = np.finfo(np.float32).max

_MAGIC = np.float32(3 << 22)  # its ulp is 1: adding it rounds to an integer, ties to even
_HALF_SCALE = np.float32(2.0**112)  # between the exponents of f16 and f32


def encoder(function: Any) -> Any:
    """A kernel (blocks, values f32) -> (blocks, block_bytes u8) that runs without the GIL and is kept in the disk cache."""
    return njit(cache=True, nogil=True, error_model="numpy")(function)


def inner(function: Any) -> Any:
    """What encoders call."""
    return njit(error_model="numpy")(function)


def inlined(function: Any) -> Any:
    """As `inner`, but numba puts it into its callers, so that constants among the arguments are constants."""
    return njit(error_model="numpy", inline="always")(function)


@inner
def nearest(x: float) -> Any:
    """The nearest integer, ties to even; of |x| > 2^22 some other number, the same as llama.cpp's."""
    return (f32_bits(x + _MAGIC) & 0x7FFFFF) - 0x400000


@inner
def away(x: float) -> int:
    """The nearest integer, ties away from zero: C's roundf."""
    whole = np.trunc(x)
    rest = x - whole
    return int(whole) + (1 if rest >= HALF else 0) - (1 if rest <= -HALF else 0)


@inner
def clamp(low: int, high: int, x: int) -> int:
    """`x` within both bounds."""
    return max(low, min(high, x))


@inner
def inverse(x: float) -> Any:
    """1 / x, and 0 of 0."""
    return ONE / x if x != ZERO else ZERO


@inner
def half_bits(x: float) -> Any:
    """The bits of the nearest f16, ties to even."""
    bits = f32_bits(x)
    sign, size = (bits >> 16) & 0x8000, bits & 0x7FFFFFFF
    if size >= 0x47800000:  # 2^16, infinity or no number
        return sign | (0x7E00 if size > 0x7F800000 else 0x7C00)
    if size < 0x38800000:  # 2^-14: a subnormal, whose unit is the ulp of 0.5
        return sign | (f32_bits(bits_f32(np.int32(size)) + HALF) - 0x3F000000)
    return sign | ((size + 0xFFF + ((size >> 13) & 1) - 0x38000000) >> 13)


@inner
def half_value(bits: int) -> Any:
    """The finite f16 of those bits, as f32."""
    size = bits_f32(np.int32((bits & 0x7FFF) << 13)) * _HALF_SCALE
    return -size if bits & 0x8000 else size


@inner
def store_half(out: Any, offset: int, x: float) -> Any:
    """Stores `x` as f16, and returns what it became."""
    bits = half_bits(x)
    out[offset], out[offset + 1] = bits & 255, bits >> 8
    return half_value(bits)


@inner
def extreme(x: Any) -> Any:
    """The value that is farthest from zero, with its sign; of several the first."""
    size, value = ZERO, ZERO
    for i in range(len(x)):
        if abs(x[i]) > size:
            size, value = abs(x[i]), x[i]
    return value
