"""Float values to the bytes of a tensor type, by the type's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from runtime.core import ModelError
from runtime.quantize import blocks32, blocks256, codebooks, ternary, uneven
from runtime.quants import BY_NAME
from runtime.quants.base import Bytes, Floats

_KERNELS: Mapping[str, Callable[[Any, Any], None]] = {
    "Q4_0": blocks32.q4_0,
    "Q4_1": blocks32.q4_1,
    "Q5_0": blocks32.q5_0,
    "Q5_1": blocks32.q5_1,
    "Q8_0": blocks32.q8_0,
    "Q2_K": blocks256.q2_k,
    "Q3_K": blocks256.q3_k,
    "Q4_K": blocks256.q4_k,
    "Q5_K": blocks256.q5_k,
    "Q6_K": blocks256.q6_k,
    "IQ4_NL": uneven.iq4_nl,
    "IQ4_XS": uneven.iq4_xs,
    "MXFP4": uneven.mxfp4,
    "IQ2_S": codebooks.iq2_s,
    "IQ3_XXS": codebooks.iq3_xxs,
    "IQ3_S": codebooks.iq3_s,
    "TQ1_0": ternary.tq1_0,
    "TQ2_0": ternary.tq2_0,
}

_HALVES = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    **{"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "TQ1_0": (52,), "TQ2_0": (64,), "MXFP4": ()},
}
"""Where the f16 numbers of a block are."""

ENCODED = frozenset(_KERNELS) | {"F32", "F16", "BF16"}
"""The types that can be made."""


def encode(name: str, values: Floats) -> Bytes:
    """(n, block_size) contiguous -> (n, block_bytes). ModelError for values that the type cannot hold. Runs without the GIL."""
    if name not in ENCODED:
        raise ModelError(f"{name} needs an importance matrix")
    if not np.isfinite(values).all():
        raise ModelError("has values that are infinite or no numbers")
    blocks = _floats(name, values) if name not in _KERNELS else _quants(name, values)
    return blocks


def _quants(name: str, values: Floats) -> Bytes:
    blocks = np.empty((len(values), BY_NAME[name].block_bytes), np.uint8)
    _KERNELS[name](values, blocks)
    for offset in _HALVES[name]:
        if (blocks[:, offset + 1] & 0x7C == 0x7C).any():
            raise ModelError(f"has values that are too large for {name}")
    return blocks


def _floats(name: str, values: Floats) -> Bytes:
    if name == "F32":
        return values.view(np.uint8)
    if name == "F16":
        with np.errstate(over="ignore"):
            halves = values.astype("<f2")
        if np.isinf(halves).any():
            raise ModelError("has values that are too large for F16")
        return halves.view(np.uint8)
    bits = values.view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + (bits >> 16 & 1))) >> 16).astype("<u2").view(np.uint8)
