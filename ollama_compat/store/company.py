"""Who else works on a store: other servers of this kind by a lock, an Ollama by its process or its answer."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ollama_compat.settings import Address
from ollama_compat.store import folders

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_DEFAULT = Address()  # where an Ollama listens unless it is told otherwise
_PATIENCE = 1.0  # seconds for a connection to this machine


class Presence:
    """The sign that a server is at work on a store: a shared lock, held until the process ends or `leave`."""

    def __init__(self, folder: Path) -> None:
        folders.make(folder)
        self._descriptor = os.open(folder / "serving", os.O_CREAT | os.O_RDWR, 0o644)
        _lock(self._descriptor, alone=False)

    def is_alone(self) -> bool:
        """Whether no other server of this kind is at work on the store now."""
        try:
            return _lock(self._descriptor, alone=True)
        finally:
            _lock(self._descriptor, alone=False)

    def leave(self) -> None:
        """The server ends."""
        os.close(self._descriptor)


def _lock(descriptor: int, *, alone: bool) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def ollama_runs(own: Address, processes: Path = Path("/proc")) -> bool:
    """Whether an Ollama, or anything in its place, is at work here. It cannot be asked for its store, which may be this one."""
    return _process(processes) or (own.port != _DEFAULT.port and _answers(_DEFAULT))


def _process(processes: Path) -> bool:
    """Whether a program called `ollama` serves; where there is no /proc, none is seen."""
    for path in processes.glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # gone since, or not ours to see
            continue
        if os.path.basename(words[0]) == b"ollama" and any(word in (b"serve", b"start") for word in words[1:]):
            return True
    return False


def _answers(address: Address) -> bool:
    try:
        with socket.create_connection((address.host, address.port), _PATIENCE):
            return True
    except OSError:
        return False
