"""numba's decorators, with tier and cache folder set before their first use.

numba fixes the CPU that it compiles for when the process decorates its first function, and a cache folder when it
decorates each. So every module of kernels takes `njit` and `cfunc` from here and never from numba.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba

from runtime.kernels import cache as kernel_cache
from runtime.kernels import isa

llvmlite.binding.initialize_native_asmparser()  # leaves hold some instructions as text

FOLDER: Path | None = kernel_cache.configure()
TIER: isa.Tier = isa.select(os.environ.get(isa.ENVIRONMENT), FOLDER)


def njit(*arguments: Any, cache: bool = False, **options: Any) -> Any:
    """`numba.njit` with options, for a function; `cache=True` is dropped where there is no folder."""
    decorate = numba.njit(*arguments, **options)
    return functools.partial(_kept, decorate) if cache and FOLDER is not None else decorate


def _kept(decorate: Callable[[Any], Any], function: Any) -> Any:
    """The function decorated, and kept on disk."""
    made = decorate(function)
    made._cache = kernel_cache.Kept(function)  # as made.enable_caching does
    return made


def cfunc(*arguments: Any, cache: bool = False, **options: Any) -> Any:
    """`numba.cfunc`; `cache=True` is dropped where there is no folder."""
    return numba.cfunc(*arguments, cache=cache and FOLDER is not None, **options)
