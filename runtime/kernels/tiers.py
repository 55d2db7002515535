"""Which primitives a tier has."""

from __future__ import annotations

from runtime.kernels.emitter import Builder, Emitter
from runtime.kernels.x86 import Avx2, Avx512, AvxVnni

_EMITTERS: dict[str, type[Emitter]] = {kind.tier: kind for kind in (Emitter, Avx2, AvxVnni, Avx512)}


def emitter(tier: str, builder: Builder) -> Emitter:
    """The primitives of a tier, writing to `builder`."""
    return _EMITTERS[tier](builder)
