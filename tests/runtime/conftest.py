"""Fixtures for the token world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stepping import open_model

from runtime.execute.cpu import CpuExecutor


@pytest.fixture
def executors() -> Iterator[Callable[..., CpuExecutor]]:
    """Opens models; all are closed when the test ends."""
    opened: list[CpuExecutor] = []

    def open_one(path: Path, **options: Any) -> CpuExecutor:
        opened.append(open_model(path, **options))
        return opened[-1]

    yield open_one
    for executor in opened:
        executor.close()
