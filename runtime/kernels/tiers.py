"""Which primitives a tier has."""

from __future__ import annotations

from runtime.kernels.emitter import Builder, Emitter
from runtime.kernels.strips import StripEmitter
from runtime.kernels.x86 import Avx2, Avx512, AvxVnni

_EMITTERS: dict[str, type[Emitter]] = {kind.tier: kind for kind in (Emitter, Avx2, AvxVnni, Avx512)}


def few_registers(tier: str) -> bool:
    """Whether the tier has only 16 vector registers."""
    return _EMITTERS[tier].registers == 16


def strip_rows(tier: str) -> int:
    """Rows of a strip; 0 where the tier has no use for strips."""
    kind = _EMITTERS[tier]
    return kind.register // 4 if issubclass(kind, StripEmitter) else 0


def emitter(tier: str, builder: Builder) -> Emitter:
    """The primitives of a tier, writing to `builder`."""
    return _EMITTERS[tier](builder)
