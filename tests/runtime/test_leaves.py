"""Every leaf, on every tier that this machine executes: the cases in a child process for each, and the disk cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.kernels import isa, jit, tiers
from runtime.kernels.leaves import COLUMNS, activation_bytes, needed, strip_columns

ROOT = Path(__file__).resolve().parents[2]

COMPILE = """
import ctypes
import numpy as np
from runtime.kernels.leaves import Leaves, needed
leaves = Leaves()
for name in needed(["Q8_0"]):
    leaves.compile(name)
out = np.zeros(32, np.float32)
block = np.ones(34, np.uint8)
ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(leaves.dequantize_row("Q8_0"))(block.ctypes.data, out.ctypes.data, 1)
assert np.all(out == np.array([0x0101], np.uint16).view(np.float16).astype(np.float32))
print(leaves.cache.compiled, leaves.cache.loaded)
"""

# what is other machine code than that of avx512bf16, which adds some instructions to these tiers
DIFFERENT = {
    "avx512vbmi": "BF16 or machine_code or asked_for",
    "avx512": "_K or IQ or BF16 or opened or machine_code or asked_for",
    "amx": "strip or unpacked or machine_code",
}


@pytest.fixture(scope="module")
def executed() -> tuple[str, ...]:
    return isa.probe(None)


def child(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("tier", list(isa.TIERS))
def test_every_leaf(tier: str, executed: tuple[str, ...]) -> None:
    if tier not in executed:
        pytest.skip(f"this CPU does not execute {tier}")
    cases = [str(Path(__file__).with_name(name)) for name in ("leaf_cases.py", "kept_cases.py", "delta_cases.py")]
    if "avx512bf16" in executed and tier in DIFFERENT:
        cases = [cases[0], "-k", DIFFERENT[tier]]
    done = child(["-X", "faulthandler", "-m", "pytest", "-p", "no:cacheprovider", "-x", *cases], MOELLAMA_ISA=tier)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "passed" in done.stdout


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    count = len(needed(["Q8_0"]))
    environment = {"XDG_CACHE_HOME": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    first, second = (child(["-c", COMPILE], **environment) for _ in range(2))
    assert first.stdout.split() == [str(count), "0"], first.stderr
    assert second.stdout.split() == ["0", str(count)], second.stderr


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = child(["-c", COMPILE], XDG_CACHE_HOME=str(blocked), NUMBA_CACHE_DIR="")
    assert done.stdout.split() == [str(len(needed(["Q8_0"]))), "0"], done.stderr
    assert done.stderr.count("compiled kernels are not kept") == 1


def test_needed_names_every_leaf_once() -> None:
    names = needed(["Q4_K", "Q6_K", "Q4_K"])
    assert len(names) == len(set(names)) == 2 * len(COLUMNS) + 1 + 2
    assert {"dot.Q4_K.8", "dot.Q6_K.1", "quantize.q8_k", "dequantize_row.Q6_K"} <= set(names)
    assert {"unpack.Q4_K", "strip.openedQ4_K.8"} <= set(needed(["F32"], strips=["Q4_K"], tier="avx2"))
    opened = 0 if tiers.has_tiles(jit.TIER.name) else 2
    names = needed(["F32"], strips=["Q4_K"])
    assert len(names) == len(set(names)) == len(COLUMNS) + len(strip_columns("Q4_K", jit.TIER.name)) + 2 + 2 + 2 + opened
    assert {"dot.F32.8", "strip.Q4_K.1", "interleave.Q4_K", "row.Q4_K", "quantize.q8_k", "dequantize_row.Q4_K"} <= set(names)


def test_activation_bytes() -> None:
    assert (activation_bytes("q8_k", 512), activation_bytes("q8_0", 96), activation_bytes("f32", 5)) == (640, 120, 20)
