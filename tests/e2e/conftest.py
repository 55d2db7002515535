"""One server for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests here; they name their own models or the embedded one."""
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()
