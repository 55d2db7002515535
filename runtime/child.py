"""Child processes that run a module of this package."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def command(module: str, *arguments: str) -> list[str]:
    """`python -m module arguments`, by the interpreter of this process."""
    return [sys.executable, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """In which the child finds this package, from wherever it was imported here."""
    paths = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
