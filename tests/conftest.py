"""Fixtures for all tests."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[1] / "ollama_compat/data/demo-moe-Q4_K_M.gguf"


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The embedded model."""
    return DEMO


def pytest_configure() -> None:
    """Shells let background jobs ignore SIGINT, and so would the programs that tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what compiling kernels cost, all processes together."""
    from runtime.kernels import cache

    folder = cache.configure()
    if folder is not None:
        terminalreporter.write_line(f"{cache.compile_seconds(folder):.1f} s spent compiling kernels into {folder}")
