"""ISA tiers: which one this CPU executes, and telling numba to compile for it.

A tier counts as executable when a child process has compiled a small kernel of it, run it and got the right numbers:
flags are advertised where the operating system or a hypervisor makes the instruction fault. MOELLAMA_ISA names a tier to
use instead of the best one.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from runtime import child

ENVIRONMENT = "MOELLAMA_ISA"
PROBE_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Tier:
    """What LLVM is told. `-sse4a`: on AMD, LLVM otherwise puts `extrq` (no VEX form) between AVX code, up to 80x slower."""

    name: str
    cpu: str
    features: str
    tiles: bool = False  # whether a process has to be permitted their registers


_X86 = platform.machine().lower() in ("x86_64", "amd64")
_AVX2 = "+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+popcnt,+movbe,-sse4a"
_AVX512 = f"{_AVX2},+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni"
_VBMI = "+avx512vbmi,+gfni"
_BF16 = f"{_AVX512},{_VBMI},+avx512bf16"

_X86_TIERS = (
    Tier("portable", "x86-64", "-sse4a"),
    Tier("avx2", "haswell", _AVX2),
    Tier("avxvnni", "haswell", f"{_AVX2},+avxvnni"),
    Tier("avx512", "x86-64-v4", _AVX512),
    Tier("avx512vbmi", "x86-64-v4", f"{_AVX512},{_VBMI}"),
    Tier("avx512bf16", "x86-64-v4", _BF16),
    Tier("amx", "x86-64-v4", f"{_BF16},+amx-tile,+amx-int8", tiles=True),
)
TIERS: dict[str, Tier] = {tier.name: tier for tier in (_X86_TIERS if _X86 else (Tier("portable", "generic", ""),))}
"""From the plainest to the best."""


class IsaError(Exception):
    """The tier asked for does not exist, is not executed by this CPU, or comes too late."""


def probe(folder: Path | None) -> tuple[str, ...]:
    """Names of the tiers that this CPU executes, in the order of TIERS; remembered in `folder` for the same CPU."""
    if len(TIERS) == 1:
        return tuple(TIERS)
    note = folder / f"isa-{_cpu_digest()}.json" if folder else None
    known = _read(note) if note else None
    if known is None:
        known = _probe()
        if note:
            _write(note, known)
    return known


def select(name: str | None, folder: Path | None) -> Tier:
    """Make numba compile for tier `name` (None: the best one). Must come before the process's first numba decorator.

    Raises IsaError. `folder`: see `probe`.
    """
    executed = probe(folder)
    asked, name = name, name or executed[-1]
    if name not in TIERS:
        raise IsaError(f"{ENVIRONMENT}={name}: no such tier, there are {', '.join(TIERS)}")
    if name not in executed:
        raise IsaError(f"{ENVIRONMENT}={name}: this CPU does not execute it, only {', '.join(executed)}")
    if TIERS[name].tiles and not permit_tiles():
        if asked:
            raise IsaError(f"{ENVIRONMENT}={name}: the operating system lets this process have no tile registers")
        name = executed[-2]
    _configure(TIERS[name])
    return TIERS[name]


def permit_tiles() -> bool:
    """Ask the operating system for this process's tile registers, after which it has them: without, AMX ends the process. Linux
    refuses where a thread has a signal stack that is too small to keep them."""
    request, tile_data, system_call = 0x1023, 18, 158  # ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA, arch_prctl of x86-64
    if not (_X86 and sys.platform == "linux"):
        return False
    return int(ctypes.CDLL(None).syscall(system_call, request, tile_data)) == 0


def _configure(tier: Tier) -> None:
    from numba import config
    from numba.core.registry import cpu_target

    if tier.cpu == config.CPU_NAME and tier.features == config.CPU_FEATURES:
        return
    if "_toplevel_target_context" in vars(cpu_target):  # made by the first decorator; it has read the CPU name
        raise IsaError(f"too late to compile for {tier.name}: numba was used before; import its decorators from kernels.jit")
    config.CPU_NAME, config.CPU_FEATURES = tier.cpu, tier.features


def reads_past_caches() -> bool:
    """Whether lines that are read once should be asked for as such (`prefetchnta`): AMD's cores then keep them out of the larger
    caches, Intel's lose them before they are used (docs/log.md, "How far ahead to prefetch")."""
    import llvmlite.binding as llvm

    return str(llvm.get_host_cpu_name()).startswith("znver")


def _cpu_digest() -> str:
    """Of the CPU's model and of what the operating system lets it do."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    text = f"{platform.machine()} {llvm.get_host_cpu_name()} {features.flatten()} {_model_name()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _model_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), "")


def _probe() -> tuple[str, ...]:
    """Run one child for each tier, at the same time; the plainest needs none."""
    plainest, *others = TIERS
    # a frozen numba environment variable must not change what the child compiles
    environment = {key: value for key, value in child.environment().items() if not key.startswith("NUMBA_")}
    children = [
        subprocess.Popen(
            _command(name),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in others
    ]
    return (plainest, *(name for name, process in zip(others, children, strict=True) if _succeeded(process)))


def _command(tier: str) -> list[str]:
    return child.command("runtime.kernels.probe", tier)


def _succeeded(process: subprocess.Popen[bytes]) -> bool:
    try:
        return process.wait(PROBE_SECONDS) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def _read(note: Path) -> tuple[str, ...] | None:
    try:
        names = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    return tuple(names) if isinstance(names, list) and names and set(names) <= set(TIERS) else None


def _write(note: Path, names: tuple[str, ...]) -> None:
    """Whole or not at all; a folder that cannot be written only means another probe next time."""
    draft = note.with_suffix(f".{os.getpid()}")
    try:
        draft.write_text(json.dumps(names))
        draft.replace(note)
    except OSError:
        return
