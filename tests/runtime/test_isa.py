"""Probing and choosing the ISA tier."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.kernels import isa, jit

ROOT = Path(__file__).resolve().parents[2]
REPORT = "import numba; from runtime.kernels import jit; print(jit.TIER.name, numba.config.CPU_NAME, numba.config.CPU_FEATURES)"
TOO_LATE = "import numba; numba.njit(lambda: 1); from runtime.kernels import jit"
OTHERS = [name for name in isa.TIERS if name != "portable"]


def child(code: str, tmp_path: Path, tier: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path), "MOELLAMA_ISA": tier}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_probe_executes_the_plainest_tier_and_keeps_the_order() -> None:
    found = isa.probe(None)
    assert found[0] == "portable"
    assert list(found) == [name for name in isa.TIERS if name in found]


def test_probe_believes_the_child_and_not_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that dies of SIGILL, as one does whose instruction faults, is a no."""
    died = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGILL)"]
    monkeypatch.setattr(isa, "_command", lambda tier: died)
    assert isa.probe(None) == ("portable",)


def test_probe_gives_up_on_a_child_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "_command", lambda tier: [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(isa, "PROBE_SECONDS", 0.1)
    assert isa.probe(None) == ("portable",)


@pytest.mark.skipif(not OTHERS, reason="one tier only")
def test_the_answer_is_remembered_for_this_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = isa.probe(tmp_path)
    monkeypatch.setattr(isa, "_command", lambda tier: pytest.fail("probed again"))
    assert isa.probe(tmp_path) == first
    (note,) = tmp_path.glob("isa-*.json")
    note.write_text('["portable", "made-up"]')
    with pytest.raises(pytest.fail.Exception):
        isa.probe(tmp_path)  # not an answer: probe again


def test_probe_works_where_nothing_can_be_remembered(tmp_path: Path) -> None:
    assert isa.probe(tmp_path / "no such folder")[0] == "portable"


def test_the_best_tier_is_the_default(tmp_path: Path) -> None:
    done = child(REPORT, tmp_path, "")
    assert done.stdout.split()[0] == isa.probe(None)[-1], done.stderr


def test_a_tier_is_chosen_by_the_environment(tmp_path: Path) -> None:
    plain = isa.TIERS["portable"]
    assert child(REPORT, tmp_path, "portable").stdout.split() == ["portable", plain.cpu, *plain.features.split()]


def test_features_never_hold_sse4a() -> None:
    for tier in isa.TIERS.values():
        assert "+sse4a" not in tier.features
        assert "x86" not in tier.cpu or "-sse4a" in tier.features


def test_an_unknown_tier_is_refused() -> None:
    with pytest.raises(isa.IsaError, match=r"MOELLAMA_ISA=sse9: no such tier, there are portable"):
        isa.select("sse9", None)


@pytest.mark.skipif(not OTHERS, reason="one tier only")
def test_a_tier_that_the_cpu_does_not_execute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "probe", lambda folder: ("portable",))
    with pytest.raises(isa.IsaError, match="this CPU does not execute it, only portable"):
        isa.select(OTHERS[-1], None)


def test_selecting_the_same_tier_again_is_fine() -> None:
    assert isa.select(jit.TIER.name, None) == jit.TIER


@pytest.mark.skipif(not OTHERS, reason="one tier only")
def test_a_second_tier_in_one_process_is_refused() -> None:
    other = next(name for name in isa.probe(None) if name != jit.TIER.name)
    with pytest.raises(isa.IsaError, match=f"too late to compile for {other}"):
        isa.select(other, None)


def test_numba_used_before_is_refused(tmp_path: Path) -> None:
    done = child(TOO_LATE, tmp_path, "portable")
    assert done.returncode != 0
    assert "too late to compile for portable" in done.stderr
