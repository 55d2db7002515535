"""numba's decorators, with tier and cache folder set before their first use.

numba fixes the CPU that it compiles for when the process decorates its first function, and a cache folder when it
decorates each. So every module of kernels takes `njit` and `cfunc` from here and never from numba.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numba

from runtime.kernels import cache, isa

FOLDER: Path | None = cache.configure()
TIER: isa.Tier = isa.select(os.environ.get(isa.ENVIRONMENT), FOLDER)


def njit(*arguments: Any, cache: bool = False, **options: Any) -> Any:
    """`numba.njit`; `cache=True` is dropped where there is no folder."""
    return numba.njit(*arguments, cache=cache and FOLDER is not None, **options)


def cfunc(*arguments: Any, cache: bool = False, **options: Any) -> Any:
    """`numba.cfunc`; `cache=True` is dropped where there is no folder."""
    return numba.cfunc(*arguments, cache=cache and FOLDER is not None, **options)
