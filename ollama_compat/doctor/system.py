"""What the operating system tells of the machine: processor, memory modules, limits of containers and WSL, the card's driver."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import re
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ollama_compat import cgroup, memory

_CPUS = "sys/devices/system/cpu"
_DRIVER_SECONDS = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Modules:
    """Memory modules, where the firmware's tables may be read (most systems let only root)."""

    count: int
    slots: int
    speed: int  # mega-transfers a second; 0: not told
    channels: int  # that have a module; 0: not told


@dataclasses.dataclass(frozen=True, slots=True)
class System:
    """Bytes and counts; None is what the system does not tell."""

    cpu: str
    cores: int  # physical ones of this machine
    threads: int  # logical ones that this process may use
    quota: float | None  # CPUs that a container's limit grants
    numa_nodes: int
    cache_bytes: int  # of the last level
    memory_total: int | None
    memory_available: float  # within a container's limit; infinity where nobody tells
    modules: Modules | None
    pinned_limit: int | None  # bytes that a process may lock; None: no limit
    container: str  # "docker", "lxc", ...; empty
    wsl: bool
    driver: dict[str, Any] | None  # of the NVIDIA card, as nvidia-smi tells it


def read(root: Path = Path("/")) -> System:
    """All of it. `root`: where proc and sys are."""
    version = _text(root / "proc/version").lower()
    return System(
        cpu=_cpu_name(_text(root / "proc/cpuinfo")),
        cores=_cores(root / _CPUS),
        threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        quota=quota if math.isfinite(quota := cgroup.cpus(root)) else None,
        numa_nodes=max(1, len(list((root / "sys/devices/system/node").glob("node[0-9]*")))),
        cache_bytes=_last_cache(root / _CPUS / "cpu0/cache"),
        memory_total=_memory_total(_text(root / "proc/meminfo")),
        memory_available=memory.available(root),
        modules=_modules(root / "sys/firmware/dmi/entries"),
        pinned_limit=_pinned_limit(),
        container=_container(root),
        wsl="microsoft" in version,
        driver=_driver(),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _cpu_name(cpuinfo: str) -> str:
    found = {key: re.search(rf"^{key}\s*: (.*)$", cpuinfo, re.M) for key in ("model name", "cpu family", "model")}
    name, family, model = (match[1].strip() if match else "" for match in found.values())
    return f"{name} (family {family}, model {model})" if name and family else name or platform.processor() or platform.machine()


def _cores(cpus: Path) -> int:
    lists = {_text(path) for path in cpus.glob("cpu[0-9]*/topology/thread_siblings_list")} - {""}
    return len(lists) or os.cpu_count() or 1


def _last_cache(folder: Path) -> int:
    """Bytes of the highest level; 0 where the system does not tell."""
    levels = {_text(index / "level").strip(): _size(_text(index / "size")) for index in folder.glob("index[0-9]*")}
    return levels[max(levels)] if levels else 0


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)\s*", text)
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]] if match else 0


def _memory_total(meminfo: str) -> int | None:
    match = re.search(r"^MemTotal:\s*(\d+) kB", meminfo, re.M)
    return int(match[1]) << 10 if match else None


def _modules(entries: Path) -> Modules | None:
    """From the tables of SMBIOS: structures of type 17 are the slots."""
    raw = []
    for entry in sorted(entries.glob("17-*")):
        try:
            raw.append((entry / "raw").read_bytes())
        except OSError:
            return None
    return modules(raw) if raw else None


def modules(structures: Iterable[bytes]) -> Modules | None:
    """Of SMBIOS structures of type 17 (DSP0134, 7.18): size at 0x0C, locator strings at 0x10 and 0x11, speed in use at 0x20."""
    slots, speeds, places = 0, [0], []
    for raw in structures:
        if len(raw) < 0x22:
            continue
        slots += 1
        if struct.unpack_from("<H", raw, 0x0C)[0]:
            speeds.append(struct.unpack_from("<H", raw, 0x20)[0])
            places.append(" ".join(_string(raw, raw[at]) for at in (0x10, 0x11)))
    channels = {match[1].upper() for place in places if (match := re.search(r"channel\s*[-_]?\s*([A-Z0-9]+)", place, re.I))}
    return Modules(len(places), slots, max(speeds), len(channels)) if slots else None


def _string(raw: bytes, number: int) -> str:
    """A structure's strings stand behind it, each ended by a NUL, and count from 1."""
    strings = raw[raw[1] :].split(b"\0")
    return strings[number - 1].decode("latin-1") if 0 < number <= len(strings) else ""


def _pinned_limit() -> int | None:
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def _container(root: Path) -> str:
    if (root / ".dockerenv").exists():
        return "docker"
    match = re.search(r"container=(\w+)", _text(root / "proc/1/environ").replace("\0", "\n"))
    if match:
        return match[1]
    match = re.search(r"/(docker|lxc|kubepods|podman)", _text(root / "proc/1/cgroup"))
    return match[1] if match else ""


_FIELDS = ("name", "driver_version", "memory.total", "pcie.link.gen.max", "pcie.link.width.max")


def _driver() -> dict[str, Any] | None:
    """The card with the most free memory, which a model gets, as its driver names it; None without nvidia-smi or a card."""
    program = shutil.which("nvidia-smi") or shutil.which("/usr/lib/wsl/lib/nvidia-smi")
    if program is None:
        return None
    query = [program, f"--query-gpu=memory.free,{','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_DRIVER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _roomiest(done.stdout) if done.returncode == 0 else None


def _roomiest(told: str) -> dict[str, Any] | None:
    """`told`: a line for each card, its free memory first."""
    cards = [[part.strip() for part in line.split(",")] for line in told.splitlines() if line.strip()]
    best = max(cards, key=lambda parts: int(parts[0]) if parts[0].isdecimal() else 0, default=None)
    return dict(zip(_FIELDS, best[1:], strict=False)) if best else None
