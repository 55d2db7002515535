"""Rotary position embedding: the frequencies, with the scalings that GGUF files name."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from runtime.config import Rope
from runtime.layers.ops import Rotation
from runtime.weights import Weights


def rotation(rope: Rope, weights: Weights, *, factors: bool = True) -> Rotation:
    """Frequencies of a model; `rope_freqs.weight` (Llama 3) divides them where the file has it, and so
    does `rope_factors_short.weight` (Phi 3, for contexts up to the original one), unless `factors` is false."""
    half = rope.dimensions // 2
    frequencies = rope.freq_base ** (-np.arange(half, dtype=np.float64) / half)
    if factors and "rope_freqs.weight" in weights:
        frequencies = frequencies / weights.vector("rope_freqs.weight", half)
    if factors and "rope_factors_short.weight" in weights:
        frequencies = frequencies / weights.vector("rope_factors_short.weight", half)
    if rope.scaling == "linear":
        return Rotation(frequencies / rope.factor, rope.attn_factor)
    if rope.scaling == "yarn":
        return Rotation(_yarn(frequencies, rope), rope.attn_factor * (1 + 0.1 * math.log(rope.factor)))
    return Rotation(frequencies, rope.attn_factor)


def _yarn(frequencies: npt.NDArray[np.float64], rope: Rope) -> npt.NDArray[np.float64]:
    """Fast dimensions keep their frequency, slow ones are stretched, a ramp lies between (arXiv 2309.00071)."""
    low = max(0.0, math.floor(_turning_point(rope.beta_fast, rope)))
    high = min(rope.dimensions - 1.0, math.ceil(_turning_point(rope.beta_slow, rope)))
    ramp = 1 - np.clip((np.arange(len(frequencies)) - low) / max(0.001, high - low), 0, 1)
    stretched: npt.NDArray[np.float64] = frequencies / rope.factor * (1 - ramp) + frequencies * ramp
    return stretched


def _turning_point(turns: float, rope: Rope) -> float:
    """The dimension that makes so many turns within the original context."""
    return rope.dimensions * math.log(rope.original_context / (turns * 2 * math.pi)) / (2 * math.log(rope.freq_base))
