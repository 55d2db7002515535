"""Threads that sleep in the kernel until a word changes (a futex on Linux, short naps elsewhere)."""

from __future__ import annotations

import platform
import sys

from numba import types

from runtime.kernels.jit import njit
from runtime.kernels.memory import fetch_add, load_strict

_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), 0) if sys.platform == "linux" else 0
_WAIT, _WAKE = 128, 129  # the process-private forms
_NAP = 200  # microseconds

_usleep = types.ExternalFunction("usleep", types.int32(types.int32))
_syscall = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))


@njit(nogil=True, cache=True, error_model="numpy")
def sleep(word: int, sleepers: int, seen: int) -> None:
    """Sleep until the int64 at `word` is no longer `seen`. The count of sleepers goes up before the word is read again, and
    whoever changes it does so before `wake` reads the count, so one of the two sees the other."""
    if _FUTEX == 0:
        _usleep(_NAP)
        return
    fetch_add(sleepers, 1)
    if load_strict(word) == seen:
        _syscall(_FUTEX, word, _WAIT, seen & 0xFFFFFFFF, 0, 0, 0)  # compares the low 32 bits
    fetch_add(sleepers, -1)


@njit(nogil=True, cache=True, error_model="numpy")
def wake(word: int, sleepers: int) -> None:
    """Wake who sleeps; the word has been changed by `fetch_add`."""
    if _FUTEX != 0 and load_strict(sleepers) > 0:
        _syscall(_FUTEX, word, _WAKE, 0x7FFFFFFF, 0, 0, 0)
