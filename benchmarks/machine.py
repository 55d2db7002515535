"""What every benchmark prints above its figures: the machine, the commit and the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def heading(tree: Path = ROOT) -> str:
    """One line."""
    from ollama_compat.doctor import system  # found by way of the path above

    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=tree, capture_output=True, text=True, check=False)
    found = system.read()
    return f"{found.cpu}, {found.cores} cores; commit {done.stdout.strip() or 'unknown'}; {' '.join(sys.argv)}"
