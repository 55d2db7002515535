"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[1] / "ollama_compat/data/demo-moe-Q4_K_M.gguf"


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The embedded model."""
    return DEMO
