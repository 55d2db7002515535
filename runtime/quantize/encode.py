"""Float values to the bytes of a tensor type, by the type's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from runtime.core import ModelError
from runtime.quantize import blocks32, blocks256, codebooks, one_bit, ternary, uneven, weighed32, weighed256, weighing
from runtime.quants import BY_NAME
from runtime.quants.base import Bytes, Floats

_PLAIN: Mapping[str, Callable[[Any, Any], None]] = {
    "Q4_0": blocks32.q4_0,
    "Q4_1": blocks32.q4_1,
    "Q5_0": blocks32.q5_0,
    "Q5_1": blocks32.q5_1,
    "Q8_0": blocks32.q8_0,
    "Q2_K": blocks256.q2_k,
    "Q3_K": blocks256.q3_k,
    "Q4_K": blocks256.q4_k,
    "Q5_K": blocks256.q5_k,
    "MXFP4": uneven.mxfp4,
    "TQ1_0": ternary.tq1_0,
    "TQ2_0": ternary.tq2_0,
}
"""(values, blocks): how a type is made that knows no weights, or has another way for them."""

_WEIGHED: Mapping[str, Callable[[Any, Any, Any], None]] = {
    "Q4_0": weighed32.q4_0,
    "Q4_1": weighed32.q4_1,
    "Q5_0": weighed32.q5_0,
    "Q5_1": weighed32.q5_1,
    "Q2_K": weighed256.q2_k,
    "Q3_K": weighed256.q3_k,
    "Q4_K": weighed256.q4_k,
    "Q5_K": weighed256.q5_k,
    "Q6_K": blocks256.q6_k,
    "IQ4_NL": uneven.iq4_nl,
    "IQ4_XS": uneven.iq4_xs,
    "IQ1_S": one_bit.iq1_s,
    "IQ1_M": one_bit.iq1_m,
    "IQ2_XXS": codebooks.iq2_xxs,
    "IQ2_XS": codebooks.iq2_xs,
    "IQ2_S": codebooks.iq2_s,
    "IQ3_XXS": codebooks.iq3_xxs,
    "IQ3_S": codebooks.iq3_s,
}
"""(values, weights, blocks): how a type is made whose errors count by weights."""

_HALVES = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS", "IQ3_XXS", "IQ3_S"), (0,)),
    **dict.fromkeys(("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    **{"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "TQ1_0": (52,), "TQ2_0": (64,), "MXFP4": (), "IQ1_M": ()},
}
"""Where the f16 numbers of a block are."""

ENCODED = frozenset(_PLAIN) | frozenset(_WEIGHED) | {"F32", "F16", "BF16"}
"""The types that can be made."""


def encode(name: str, values: Floats, importance: Floats | None = None) -> Bytes:
    """(rows, row) contiguous -> (blocks, block_bytes); a row is one block or several. Runs without the GIL.

    `importance`, of the same shape, says how much the errors of values count; types that do not know it take no notice.
    Raises ModelError for values that the type cannot hold, and for one of `weighing.NEEDY` without `importance`.
    """
    if name in weighing.NEEDY and importance is None:
        raise ModelError(f"{name} needs an importance matrix")
    if not np.isfinite(values).all():
        raise ModelError("has values that are infinite or no numbers")
    if name not in _PLAIN and name not in _WEIGHED:
        return _floats(name, values.reshape(-1, 1))
    return _quants(name, values, importance)


def _quants(name: str, values: Floats, importance: Floats | None) -> Bytes:
    kind = BY_NAME[name]
    in_blocks = values.reshape(-1, kind.block_size)
    blocks = np.empty((len(in_blocks), kind.block_bytes), np.uint8)
    if name not in _WEIGHED or (importance is None and name in _PLAIN):
        _PLAIN[name](in_blocks, blocks)
    else:
        weights = weighing.by_size(name, values) if importance is None else weighing.by_importance(name, values, importance)
        _WEIGHED[name](in_blocks, weights.reshape(in_blocks.shape), blocks)
    if _overflows(name, blocks):
        raise ModelError(f"has values that are too large for {name}")
    return blocks


def _overflows(name: str, blocks: Bytes) -> bool:
    """Whether an f16 number of a block is infinite, or none."""
    if name == "IQ1_M":  # its four nibbles are the highest of the scales
        return bool(((blocks[:, 55] & 0x70 == 0x70) & (blocks[:, 53] & 0xC0 == 0xC0)).any())
    return any(bool((blocks[:, offset + 1] & 0x7C == 0x7C).any()) for offset in _HALVES[name])


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
