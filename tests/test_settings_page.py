"""docs/settings.md names every variable that the code reads, and no other; the systemd unit is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNIT = ROOT / "ollama_compat/data/moellama.service"
NO_EFFECT = {"OLLAMA_FLASH_ATTENTION", "OLLAMA_SCHED_SPREAD", "OLLAMA_REMOTES"}


def test_every_variable_is_described() -> None:
    code = "".join(path.read_text() for package in ("ollama_compat", "runtime") for path in (ROOT / package).rglob("*.py"))
    read = set(re.findall(r'"((?:OLLAMA|MOELLAMA)_[A-Z_]+)"', code))
    described = set(re.findall(r"`((?:OLLAMA|MOELLAMA)_[A-Z_]+)`", (ROOT / "docs/settings.md").read_text()))
    assert described - NO_EFFECT == read


def test_unit_is_well_formed() -> None:
    text = UNIT.read_text()
    assert re.findall(r"^\[(\w+)\]$", text, re.M) == ["Unit", "Service", "Install"]
    assert "ExecStart=/usr/local/bin/moellama serve\n" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "moellama.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/moellama", "/bin/true"))
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert "moellama.service" not in checked.stderr, checked.stderr
