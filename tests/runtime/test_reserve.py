"""runtime.execute.reserve: addresses without memory."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import psutil
import pytest

from runtime.execute.reserve import reserved_array


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is reserved")
def test_memory_is_taken_where_it_is_written() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    array = reserved_array((1 << 16, 1), (8, 128, 64), np.uint16)
    assert array.nbytes == 8 << 30
    array[1 << 15] = 7
    assert (array[1 << 15] == 7).all()
    assert not array[(1 << 15) + 1].any()
    assert process.memory_info().rss - before < 64 << 20


def test_fewer_where_the_system_grants_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    array = reserved_array((1 << 16, 3), (8, 64), np.uint16)
    assert array.shape == (3, 8, 64)
    assert not array.any()
