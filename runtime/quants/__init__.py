"""Tensor types of GGUF, one file each; a new one is a file and a line in this table."""

from __future__ import annotations

from runtime.quants.base import LeafType, QuantType
from runtime.quants.bf16 import BF16
from runtime.quants.f16 import F16
from runtime.quants.f32 import F32
from runtime.quants.iq1_m import IQ1_M
from runtime.quants.iq1_s import IQ1_S
from runtime.quants.iq2_s import IQ2_S
from runtime.quants.iq2_xs import IQ2_XS
from runtime.quants.iq2_xxs import IQ2_XXS
from runtime.quants.iq3_s import IQ3_S
from runtime.quants.iq3_xxs import IQ3_XXS
from runtime.quants.iq4_nl import IQ4_NL
from runtime.quants.iq4_xs import IQ4_XS
from runtime.quants.mxfp4 import MXFP4
from runtime.quants.q2_k import Q2_K
from runtime.quants.q3_k import Q3_K
from runtime.quants.q4_0 import Q4_0
from runtime.quants.q4_1 import Q4_1
from runtime.quants.q4_k import Q4_K
from runtime.quants.q5_0 import Q5_0
from runtime.quants.q5_1 import Q5_1
from runtime.quants.q5_k import Q5_K
from runtime.quants.q6_k import Q6_K
from runtime.quants.q8_0 import Q8_0
from runtime.quants.tq1_0 import TQ1_0
from runtime.quants.tq2_0 import TQ2_0

_ALL: tuple[QuantType, ...] = (
    F32(),
    F16(),
    BF16(),
    Q4_0(),
    Q8_0(),
    Q4_K(),
    Q5_K(),
    Q6_K(),
    Q4_1(),
    Q5_0(),
    Q5_1(),
    IQ4_NL(),
    IQ4_XS(),
    MXFP4(),
    Q2_K(),
    Q3_K(),
    IQ2_XXS(),
    IQ2_XS(),
    IQ2_S(),
    IQ3_XXS(),
    IQ3_S(),
    IQ1_S(),
    IQ1_M(),
    TQ1_0(),
    TQ2_0(),
)

TYPES: dict[int, QuantType] = {kind.type_id: kind for kind in _ALL}
BY_NAME: dict[str, QuantType] = {kind.name: kind for kind in _ALL}

__all__ = ["BY_NAME", "TYPES", "LeafType", "QuantType"]
