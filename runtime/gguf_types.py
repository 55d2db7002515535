"""Numbers that GGUF files use: the tensor types of ggml and the value types of metadata. Source: ggml.h, gguf.h."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


@dataclasses.dataclass(frozen=True, slots=True)
class GGMLType:
    """A tensor type: rows are sequences of blocks, each `block_size` elements in `block_bytes` bytes."""

    id: int
    name: str
    block_size: int
    block_bytes: int


_TABLE = (
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
    (42, "Q2_0", 64, 18),
)

TYPES: Mapping[int, GGMLType] = MappingProxyType({row[0]: GGMLType(*row) for row in _TABLE})
"""Every tensor type that a file may hold, by its id."""

REMOVED_TYPES: Mapping[int, str] = MappingProxyType(
    {
        4: "Q4_2",
        5: "Q4_3",
        31: "Q4_0_4_4",
        32: "Q4_0_4_8",
        33: "Q4_0_8_8",
        36: "IQ4_NL_4_4",
        37: "IQ4_NL_4_8",
        38: "IQ4_NL_8_8",
    }
)
"""Ids that older files used and that no reader supports any more."""

BOOL, STRING, ARRAY = 7, 8, 9


@dataclasses.dataclass(frozen=True, slots=True)
class ValueType:
    """A metadata value type. `size` is in bytes; 0 where values differ in length. `code` is that of `struct` and `array`."""

    name: str
    size: int
    code: str


VALUE_TYPES: Mapping[int, ValueType] = MappingProxyType(
    {
        0: ValueType("uint8", 1, "B"),
        1: ValueType("int8", 1, "b"),
        2: ValueType("uint16", 2, "H"),
        3: ValueType("int16", 2, "h"),
        4: ValueType("uint32", 4, "I"),
        5: ValueType("int32", 4, "i"),
        6: ValueType("float32", 4, "f"),
        BOOL: ValueType("bool", 1, "B"),
        STRING: ValueType("string", 0, ""),
        ARRAY: ValueType("array", 0, ""),
        10: ValueType("uint64", 8, "Q"),
        11: ValueType("int64", 8, "q"),
        12: ValueType("float64", 8, "d"),
    }
)
