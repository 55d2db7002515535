"""Processes that this program starts: ports for them, the memory of a tree of them, that none outlives it (both on Linux)."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

SECONDS = 0.1  # between two looks
_VRAM_EVERY = 10  # looks; asking the driver takes a while
_GUARD = """import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM: it stays over the exec
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def guarded(command: list[str]) -> list[str]:
    """The same command, told to end when this process is gone, even where that is killed. It begins with a path."""
    return [sys.executable, "-I", "-c", _GUARD, str(os.getpid()), *command] if sys.platform == "linux" else command


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Peak:
    """Watches a tree of processes: `ram` and `vram` are the most bytes that it held at once."""

    def __init__(self, root: int | None, proc: Path = Path("/proc")) -> None:
        self.ram = self.vram = 0
        self._root, self._proc = root, proc
        self._smi = shutil.which("nvidia-smi")

    def look(self, *, card: bool) -> None:
        """Once."""
        if self._root is None:
            return
        pids = tree(self._root, self._proc)
        self.ram = max(self.ram, sum(resident(pid, self._proc) for pid in pids))
        if card and self._smi:
            self.vram = max(self.vram, _vram(self._smi, pids))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look again and again until the block ends."""
        stop = threading.Event()

        def watch() -> None:
            count = 0
            while not stop.wait(SECONDS):
                self.look(card=count % _VRAM_EVERY == 0)
                count += 1

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.look(card=True)


def tree(root: int, proc: Path = Path("/proc")) -> set[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for folder in proc.iterdir() if proc.is_dir() else ():
        if folder.name.isdigit():
            children.setdefault(_parent(folder), []).append(int(folder.name))
    found, waiting = set(), [root]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def _parent(folder: Path) -> int:
    try:
        # the name, in parentheses, may hold anything
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def resident(pid: int, proc: Path = Path("/proc")) -> int:
    """Bytes of memory that a process holds; 0 when it is gone."""
    try:
        return int((proc / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _vram(program: str, pids: Iterable[int]) -> int:
    query = [program, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return 0
    used = dict(line.split(", ") for line in lines if line.count(", ") == 1)
    return sum(int(used.get(str(pid), "0")) << 20 for pid in pids if used.get(str(pid), "0").isdigit())
