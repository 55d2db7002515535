"""Writing keys and values into the cache, as `kept` describes it: as whole numbers, or spread and quantised."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.core import BLOCK_TOKENS
from runtime.kernels.driver import FAST, inline
from runtime.kernels.jit import njit
from runtime.kernels.kept import GROUP, LARGEST, LENGTH, VALUE
from runtime.kernels.memory import bits_f32, f32, f32_bits, i16, i32, u8, u16

LEAST_SCALE = np.float32(1e-20)  # added to scales of whole numbers


@inline
def _f16_bits(x: Any) -> Any:
    """The bits of float32 x as f16, rounded to even; beyond f16's range infinite. NaN stays NaN."""
    u = np.uint32(f32_bits(np.float32(x)))
    sign, a = (u >> np.uint32(16)) & np.uint32(0x8000), u & np.uint32(0x7FFFFFFF)
    # no branches, so that loops over it are vectorised
    odd = (a >> np.uint32(13)) & np.uint32(1)
    normal = (a - np.uint32(0x38000000) + np.uint32(0xFFF) + odd) >> np.uint32(13)
    tiny = np.uint32(f32_bits(bits_f32(np.int32(a)) + np.float32(0.5))) - np.uint32(0x3F000000)  # 0.5 rounds at f16's last place
    magnitude = tiny if a < np.uint32(0x38800000) else normal
    magnitude = np.uint32(0x7C00) if a >= np.uint32(0x477FF000) else magnitude
    magnitude = np.uint32(0x7E00) if a > np.uint32(0x7F800000) else magnitude
    return np.uint16(sign | magnitude)


@inline
def _round(x: Any, size: int) -> None:
    """Numbers as f16 has them, in place, as other programs keep them: a small difference may choose another expert."""
    i = np.int32  # around every operation: numba widens them, and the loop would not be vectorised
    for k in range(size):
        bits = f32_bits(x[k])
        a = i(bits & i(0x7FFFFFFF))
        normal = i(i(a + i(0xFFF)) + i(i(a >> i(13)) & i(1))) & i(-0x2000)
        steps = i(f32_bits(bits_f32(a) + np.float32(0.5)) - i(0x3F000000))  # of f16's last place
        tiny = f32_bits(np.float32(steps) * np.float32(2.0**-24))
        rounded = i(tiny if a < i(0x38800000) else normal)
        rounded = i(i(0x7F800000) if a >= i(0x477FF000) else rounded)
        rounded = i(a if a > i(0x7F800000) else rounded)
        x[k] = bits_f32(i(i(bits ^ a) | rounded))


@inline
def _spread(x: Any, size: int) -> None:
    """Hadamard's transform of each 2**n values of a head, the largest that divide its size, in place: orthonormal, and its own
    inverse."""
    span = size & -size
    half = 1
    while half < span:
        for first in range(0, size, 2 * half):
            for i in range(first, first + half):
                a, b = x[i], x[i + half]
                x[i], x[i + half] = a + b, a - b
        half *= 2
    share = np.float32(1.0 / np.sqrt(span))
    for i in range(size):
        x[i] *= share


@inline
def words_bytes(size: int) -> int:
    """Bytes of a key, a value or a query in whole numbers."""
    return 2 * (size + size % 2)


@inline
def head_bytes(bits: int, size: int) -> int:
    """Kept.head_bytes."""
    return BLOCK_TOKENS * (words_bytes(size) + 4 if bits == 16 else size // GROUP * (4 * bits + 2))


@inline
def _largest(x: Any, size: int) -> Any:
    """Of the magnitudes, by their bits, which have the same order, so that it is vectorised; what is no number is the largest."""
    largest = np.int32(0)
    for i in range(size):
        largest = max(largest, np.int32(f32_bits(x[i]) & np.int32(0x7FFFFFFF)))
    return bits_f32(largest)


@inline
def _length_scale(x: Any, size: int) -> Any:
    """What whole numbers that stand for x have to be multiplied with, if their length is to be at most LENGTH. Scales are never
    0, by which softcaps divide; what is not a number stays that."""
    total = np.float32(0)
    for i in range(size):
        total += x[i] * x[i]
    length = np.float32(np.sqrt(total))
    return max(length / np.float32(LENGTH), _largest(x, size) / np.float32(LARGEST)) + LEAST_SCALE


@inline
def _nearest(x: Any) -> Any:
    """The whole number next to x, which is below 32768."""
    return np.int32(x + np.float32(32768.5)) - np.int32(32768)


@inline
def _whole(x: Any, size: int, scale: Any) -> None:
    """x / scale as whole numbers: bits of i32, in place. A loop of its own, which is vectorised."""
    inverse = np.float32(1) / scale
    for i in range(size):
        x[i] = bits_f32(_nearest(x[i] * inverse))


@inline
def store_query(x: int, size: int, out: int) -> Any:
    """A query as whole numbers, `words_bytes` of them. Returns their scale."""
    row, words = f32(x, size), i16(out, size + size % 2)
    scale = _length_scale(row, size)
    inverse = np.float32(1) / scale
    for i in range(size):
        words[i] = np.int16(_nearest(row[i] * inverse))
    if size % 2 != 0:
        words[size] = np.int16(0)
    return scale


@inline
def _pack_group(x: Any, bits: int, out: int, step: int, scale_at: int) -> None:
    """32 values to quants, a byte every `step`, and their scale; as GGUF's Q8_0 and Q4_0 have them."""
    low, high = np.float32(0), np.float32(0)
    for i in range(GROUP):
        low, high = min(low, x[i]), max(high, x[i])
    peak = high if bits == 8 and high > -low else low if bits == 8 or -low > high else high
    scale = abs(peak) / np.float32(127) if bits == 8 else peak / np.float32(-8)
    inverse = np.float32(1) / scale if abs(scale) > np.float32(1e-30) else np.float32(0)
    quants = u8(out, GROUP * step)
    u16(scale_at, 1)[0] = _f16_bits(scale)
    if bits == 8:
        for i in range(GROUP):
            quants[i * step] = np.uint8(np.int32(x[i] * inverse + np.float32(128.5)) - np.int32(128))
    else:
        for i in range(GROUP // 2):
            first = min(np.int32(x[i] * inverse + np.float32(8.5)), np.int32(15))
            second = min(np.int32(x[i + GROUP // 2] * inverse + np.float32(8.5)), np.int32(15))
            quants[i * step] = np.uint8(first | second << np.int32(4))


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def store_key(x: int, size: int, bits: int, keys: int, slot: int) -> None:
    """A key to its place among the 64 of its head's block at `keys`."""
    if bits == 16:
        row, pairs = f32(x, size), i32(keys, (size + 1) // 2 * BLOCK_TOKENS)
        _round(row, size)
        scale = _length_scale(row, size)
        _whole(row, size, scale)
        for p in range(size // 2):
            pairs[p * BLOCK_TOKENS + slot] = f32_bits(row[2 * p]) & np.int32(0xFFFF) | f32_bits(row[2 * p + 1]) << np.int32(16)
        if size % 2 != 0:
            pairs[size // 2 * BLOCK_TOKENS + slot] = f32_bits(row[size - 1]) & np.int32(0xFFFF)
        f32(keys + words_bytes(size) * BLOCK_TOKENS, BLOCK_TOKENS)[slot] = scale
        return
    _spread(f32(x, size), size)
    for g in range(size // GROUP):
        quants = keys + g * BLOCK_TOKENS * (4 * bits + 2)
        scale_at = quants + BLOCK_TOKENS * 4 * bits + 2 * slot
        _pack_group(f32(x + 4 * GROUP * g, GROUP), bits, quants + slot, BLOCK_TOKENS, scale_at)


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def store_value(x: int, size: int, bits: int, values: int, slot: int) -> None:
    """A value to its place among the 64 of its head's block at `values`."""
    if bits == 16:
        row, words = f32(x, size), i16(values + 4 * (slot // 2) * size + 2 * (slot % 2), 2 * size)
        _round(row, size)
        scale = _largest(row, size) / np.float32(VALUE) + LEAST_SCALE
        _whole(row, size, scale)
        for i in range(size):
            words[2 * i] = np.int16(f32_bits(row[i]))
        f32(values + words_bytes(size) * BLOCK_TOKENS, BLOCK_TOKENS)[slot] = scale
        return
    _spread(f32(x, size), size)
    row_bytes, scales = size * bits // 8, values + BLOCK_TOKENS * size * bits // 8
    for g in range(size // GROUP):
        scale_at = scales + 2 * (slot * (size // GROUP) + g)
        _pack_group(f32(x + 4 * GROUP * g, GROUP), bits, values + slot * row_bytes + g * 4 * bits, 1, scale_at)


@njit(nogil=True, error_model="numpy", fastmath=FAST)
def spread_heads(x: int, rows: int, heads: int, group: int, size: int) -> None:
    """`_spread` of `group` of the `heads` of each row, from the first one at `x`."""
    for r in range(rows):
        for h in range(group):
            _spread(f32(x + 4 * (r * heads + h) * size, size), size)
