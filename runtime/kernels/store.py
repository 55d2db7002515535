"""Writing keys and values into the cache, as `kept` describes it: as whole numbers, or spread and quantised."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.core import BLOCK_TOKENS
from runtime.kernels.driver import FAST, inline
from runtime.kernels.jit import njit
from runtime.kernels.kept import GROUP, LARGEST, LENGTH, VALUE
from runtime.kernels.memory import bits_f32, f32, f32_bits, i16, u8, u16

LEAST_SCALE = np.float32(1e-20)


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
    for i in range(size):
        u = np.uint32(f32_bits(x[i]))
        sign, a = u & np.uint32(0x80000000), u & np.uint32(0x7FFFFFFF)
        normal = a + np.uint32(0xFFF) + ((a >> np.uint32(13)) & np.uint32(1)) & np.uint32(0xFFFFE000)
        steps = np.int32(f32_bits(bits_f32(np.int32(a)) + np.float32(0.5))) - np.int32(0x3F000000)  # of f16's last place
        tiny = np.uint32(f32_bits(np.float32(steps) * np.float32(2.0**-24)))
        magnitude = tiny if a < np.uint32(0x38800000) else normal
        magnitude = np.uint32(0x7F800000) if np.uint32(0x477FF000) <= a < np.uint32(0x7F800000) else magnitude
        x[i] = bits_f32(np.int32(sign | magnitude))


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
def head_bytes(bits: int, size: int) -> int:
    """Kept.head_bytes."""
    return BLOCK_TOKENS * (2 * (size + size % 2) + 4 if bits == 16 else size // GROUP * (4 * bits + 2))


@inline
def _largest(x: Any, size: int) -> Any:
    """Of the magnitudes."""
    largest = np.float32(0)
    for i in range(size):
        largest = max(largest, abs(x[i]))
    return largest


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
def _whole(x: Any, inverse: Any) -> Any:
    """x * inverse, below 32768, as the nearest i16."""
    return np.int16(np.int32(x * inverse + np.float32(32768.5)) - np.int32(32768))


@inline
def words_bytes(size: int) -> int:
    """Bytes of a query in whole numbers."""
    return 2 * (size + size % 2)


@inline
def store_query(x: int, size: int, out: int) -> Any:
    """A query as whole numbers, `words_bytes` of them. Returns their scale."""
    row, words = f32(x, size), i16(out, size + size % 2)
    scale = _length_scale(row, size)
    inverse = np.float32(1) / scale
    for i in range(size):
        words[i] = _whole(row[i], inverse)
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
        row, words, even = f32(x, size), i16(keys, (size + 1) * BLOCK_TOKENS), size + size % 2
        _round(row, size)
        scale = _length_scale(row, size)
        inverse = np.float32(1) / scale
        for i in range(size):
            words[(i // 2 * BLOCK_TOKENS + slot) * 2 + i % 2] = _whole(row[i], inverse)
        if even != size:
            words[(size // 2 * BLOCK_TOKENS + slot) * 2 + 1] = np.int16(0)
        f32(keys + 2 * even * BLOCK_TOKENS, BLOCK_TOKENS)[slot] = scale
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
        row, words = f32(x, size), i16(values + 4 * (slot // 2) * size, 2 * size)
        _round(row, size)
        scale = _largest(row, size) / np.float32(VALUE) + LEAST_SCALE
        inverse = np.float32(1) / scale
        for i in range(size):
            words[2 * i + slot % 2] = _whole(row[i], inverse)
        f32(values + 2 * (size + size % 2) * BLOCK_TOKENS, BLOCK_TOKENS)[slot] = scale
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
