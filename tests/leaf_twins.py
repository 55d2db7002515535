"""NumPy twins of the leaves: packed activations and dot products in float64; blocks, random ones and those at their limits."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

from runtime.kernels.leaves import COLUMNS
from runtime.kernels.tile_leaves import GROUP
from runtime.quants import BY_NAME, LeafType
from runtime.quants.activations import ACTIVATIONS

Array = np.ndarray

# |leaf - float64 on the same packed activations| / sum(|w| |x|): rounding of float sums only, the products are exact
BUDGETS = {
    "F32": 2e-7,
    "F16": 2e-7,
    "BF16": 2e-7,
    "Q4_0": 2e-7,
    "Q8_0": 2e-7,
    "Q4_K": 2e-7,
    "Q5_K": 2e-7,
    "Q6_K": 2e-7,
    "Q4_1": 2e-7,
    "Q5_0": 2e-7,
    "Q5_1": 2e-7,
    "IQ4_NL": 2e-7,
    "IQ4_XS": 2e-7,
    "MXFP4": 2e-7,
    "Q2_K": 2e-7,
    "Q3_K": 2e-7,
    "IQ2_XXS": 2e-7,
    "IQ2_XS": 2e-7,
    "IQ2_S": 2e-7,
    "IQ3_XXS": 2e-7,
    "IQ3_S": 2e-7,
    "IQ1_S": 2e-7,
    "IQ1_M": 2e-7,
    "TQ1_0": 2e-7,
    "TQ2_0": 2e-7,
}
LEAF_TYPES = [kind for kind in BY_NAME.values() if isinstance(kind, LeafType)]

# byte offsets of the f16 scales of types that have them
SCALES = {
    "Q4_0": (0,),
    "Q8_0": (0,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "IQ2_XXS": (0,),
    "IQ2_XS": (0,),
    "IQ2_S": (0,),
    "IQ3_XXS": (0,),
    "IQ3_S": (0,),
    "IQ1_S": (0,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}
# the bytes that hold the scales (and mins) of groups within a block
PACKED_SCALES = {
    "Q4_K": slice(4, 16),
    "Q5_K": slice(4, 16),
    "Q6_K": slice(192, 208),
    "IQ4_XS": slice(2, 8),
    "Q2_K": slice(0, 16),
    "Q3_K": slice(96, 108),
    "IQ2_XXS": slice(9, 66, 8),
    "IQ2_XS": slice(66, 74),
    "IQ2_S": slice(74, 82),
    "IQ3_XXS": slice(69, 98, 4),
    "IQ3_S": slice(106, 110),
    "IQ1_S": slice(35, 50, 2),
    "IQ1_M": slice(48, 56),
}


def random_blocks(kind: LeafType, count: int, rng: np.random.Generator) -> Array:
    """(count, block_bytes) u8: every bit random but for scales of ordinary size."""
    if kind.name == "F32":
        return rng.normal(0, 1, count).astype("<f4").view(np.uint8).reshape(count, 4)
    if kind.name == "F16":
        return rng.normal(0, 1, count).astype("<f2").view(np.uint8).reshape(count, 2)
    if kind.name == "BF16":
        return np.ascontiguousarray(rng.normal(0, 1, count).astype("<f4").view("<u2")[1::2]).view(np.uint8).reshape(count, 2)
    blocks = rng.integers(0, 256, (count, kind.block_bytes), np.uint8)
    for place in range(max(1, len(SCALES.get(kind.name, ())))):
        set_scale(kind, blocks, place, rng.normal(0, 0.01, count))
    return blocks


def set_scale(kind: LeafType, blocks: Array, place: int, scales: Array) -> None:
    """Write one of the scales of whole blocks: the f16 number `place`, or what the type has in place of one."""
    if kind.name == "MXFP4":  # a power of two
        blocks[:, 0] = 127 + np.frexp(scales)[1]
        return
    if kind.name == "IQ1_M":  # the upper nibbles of four words
        nibbles = scales.astype("<f2").view("<u2")[:, None] >> np.array([0, 4, 8, 12], np.uint16) & 15
        blocks[:, 49:56:2] = blocks[:, 49:56:2] & 15 | nibbles << 4
        return
    offset = SCALES[kind.name][place]
    blocks[:, offset : offset + 2] = scales.astype("<f2").view(np.uint8).reshape(-1, 2)


def limit_blocks(kind: LeafType) -> list[Array]:
    """Blocks (1, block_bytes) whose quants, scales and mins all stand at one of their limits."""
    blocks = []
    for quant in (0x00, 0xFF, 0x7F, 0x80, 0x0F, 0xF0):
        for scale in (0x7F, 0x80, 0xFF, quant):
            block = np.full((1, kind.block_bytes), quant, np.uint8)
            block[:, PACKED_SCALES.get(kind.name, slice(0))] = scale
            for place in range(max(1, len(SCALES.get(kind.name, ())))):
                set_scale(kind, block, place, np.array([-0.02 if place else 0.01]))
            blocks.append(block)
    return blocks


def limit_inputs(n: int) -> Array:
    """Activation rows that quantise to +-127 everywhere, in several patterns; (patterns, n) f32."""
    i = np.arange(n)
    signs = [np.ones(n), -np.ones(n), 1 - 2 * (i % 2), 1 - 2 * (i // 2 % 2), 1 - 2 * (i // 16 % 2), 1 - 2 * (i // 32 % 2)]
    return np.stack(signs).astype(np.float32)


# ------------------------------------------------------------ activations


def pack(activation: str, x: Array) -> Array:
    """What `quantize` stores for the row x, byte for byte (bytes that are not part of the format are 0)."""
    if activation == "f32":
        return x.astype("<f4").view(np.uint8)
    if activation == "bf16":
        bits = x.astype("<f4").view(np.uint32)
        return (bits + (bits >> 16 & 1) + 0x7FFF >> 16).astype("<u2").view(np.uint8)
    form = ACTIVATIONS[activation]
    blocks = x.astype(np.float32).reshape(-1, form.block_size)
    peak = np.abs(blocks).max(axis=1)
    usable = peak >= np.float32(2.0**-100)
    scale = np.where(usable, peak / np.float32(127), np.float32(0))
    inverse = np.where(usable, np.float32(127) / np.where(usable, peak, np.float32(1)), np.float32(0))
    quants = np.rint(blocks * inverse[:, None]).astype(np.int8)
    packed = np.zeros((len(blocks), form.block_bytes), np.uint8)
    packed[:, : form.block_size] = quants.view(np.uint8)
    packed[:, form.block_size : form.block_size + 4] = scale.astype("<f4").view(np.uint8).reshape(-1, 4)
    if activation == "q8_k":
        sums = -quants.reshape(len(blocks), 16, 16).sum(axis=2, dtype=np.int16)
        packed[:, 272:288] = (sums[:, ::2] + sums[:, 1::2]).astype("<i2").view(np.uint8)
        packed[:, 288:] = sums.astype("<i2").view(np.uint8)
    else:
        packed[:, 36:] = (-128 * quants.sum(axis=1, dtype=np.int32)).astype("<i4").view(np.uint8).reshape(-1, 4)
    return packed.reshape(-1)


def unpack(activation: str, packed: Array) -> Array:
    """The float64 values of a packed row."""
    if activation == "f32":
        return packed.view("<f4").astype(np.float64)
    if activation == "bf16":
        return (packed.view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    form = ACTIVATIONS[activation]
    blocks = packed.reshape(-1, form.block_bytes)
    scale = np.ascontiguousarray(blocks[:, form.block_size : form.block_size + 4]).view("<f4").astype(np.float64)
    return (blocks[:, : form.block_size].view(np.int8) * scale).reshape(-1)


def dot(kind: LeafType, blocks: Array, rows: int, packed: list[Array], activation: str) -> tuple[Array, Array]:
    """(columns, rows) in float64: the products, and the sums of magnitudes that errors are measured by."""
    weights = kind.dequantize(blocks).reshape(rows, -1).astype(np.float64)
    inputs = np.stack([unpack(activation, column) for column in packed])
    return inputs @ weights.T, np.abs(inputs) @ np.abs(weights).T


# ------------------------------------------------------------ guard pages

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def addresses(arrays: list[Array]) -> Array:
    return np.array([array.ctypes.data for array in arrays], np.int64)


def pointers(arrays: list[Array], columns: int) -> Array:
    """What the leaf for so many columns is given for these, which may be fewer where it has tiles: of whole groups, the last
    array again and again, and 0 where the next group would begin."""
    if columns <= max(COLUMNS):
        return addresses(arrays)
    found = np.zeros(columns, np.int64)
    found[: -(-len(arrays) // GROUP) * GROUP] = arrays[-1].ctypes.data
    found[: len(arrays)] = addresses(arrays)
    return found


class Guarded:
    """Memory that ends at, or starts after, a page that may not be touched; `.array` is its `nbytes` bytes."""

    def __init__(self, nbytes: int, *, at_end: bool) -> None:
        page = mmap.PAGESIZE
        inner = -(-nbytes // page) * page
        self._map = mmap.mmap(-1, inner + 2 * page)
        whole = np.frombuffer(self._map, np.uint8)
        for offset in (0, page + inner):
            if _libc.mprotect(whole.ctypes.data + offset, page, 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")
        start = page + (inner - nbytes if at_end else 0)
        self.array = whole[start : start + nbytes]

    @classmethod
    def copy(cls, array: Array, *, at_end: bool) -> Guarded:
        """The bytes of `array` between guard pages."""
        guarded = cls(array.nbytes, at_end=at_end)
        guarded.array[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return guarded

    @property
    def address(self) -> int:
        return int(self.array.ctypes.data)
