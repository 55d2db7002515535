"""Writing keys and values into the cache, as `kept` describes it: rounded to f16, or spread and quantised."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.core import BLOCK_TOKENS
from runtime.kernels.driver import FAST, inline
from runtime.kernels.jit import njit
from runtime.kernels.kept import GROUP
from runtime.kernels.memory import bits_f32, f32, f32_bits, u8, u16


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
    return BLOCK_TOKENS * (2 * size if bits == 16 else size // GROUP * (4 * bits + 2))


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
        row, kept = f32(x, size), u16(keys, size * BLOCK_TOKENS)
        for i in range(size):
            kept[i * BLOCK_TOKENS + slot] = _f16_bits(row[i])
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
        row, kept = f32(x, size), u16(values + 2 * slot * size, size)
        for i in range(size):
            kept[i] = _f16_bits(row[i])
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
