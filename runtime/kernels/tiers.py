"""Which primitives a tier has."""

from __future__ import annotations

from runtime.kernels.amx import Amx
from runtime.kernels.basics import Builder
from runtime.kernels.emitter import Emitter
from runtime.kernels.strips import StripEmitter
from runtime.kernels.vbmi import Avx512Bf16, Avx512Vbmi
from runtime.kernels.x86 import Avx2, Avx512, AvxVnni
from runtime.quants.base import QuantType
from runtime.quants.strips import Woven

_EMITTERS: dict[str, type[Emitter]] = {kind.tier: kind for kind in (Emitter, Avx2, AvxVnni, Avx512, Avx512Vbmi, Avx512Bf16, Amx)}


def few_registers(tier: str) -> bool:
    """Whether the tier has only 16 vector registers."""
    return _EMITTERS[tier].registers == 16


def has_tiles(tier: str) -> bool:
    """Whether the tier multiplies in tiles."""
    return issubclass(_EMITTERS[tier], Amx)


def strip_rows(tier: str) -> int:
    """Rows of a strip; 0 where the tier has no use for strips."""
    kind = _EMITTERS[tier]
    return kind.register // 4 if issubclass(kind, StripEmitter) else 0


def activation_of(kind: QuantType | Woven, tier: str) -> str:
    """The format of what weights of a type are multiplied with."""
    return kind.rounded if kind.rounded and _EMITTERS[tier].multiplies_brains else kind.activation


def emitter(tier: str, builder: Builder) -> Emitter:
    """The primitives of a tier, writing to `builder`."""
    return _EMITTERS[tier](builder)
