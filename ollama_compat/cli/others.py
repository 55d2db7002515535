"""What commands that measure say of other programs. By itself, since commands of clients do without `runtime`."""

from __future__ import annotations

from runtime.frames import CALM


def beside(cores: float | None) -> str:
    """What to say of other programs that had so many cores while something was measured: nothing of next to none, or where the
    system does not tell (None)."""
    return "" if cores is None or cores <= CALM else f"other programs had {cores:.1f} cores meanwhile: alone this is faster"
